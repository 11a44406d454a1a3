"""Engine of `engine=mmseg`: our frozen encoder and head inside mmsegmentation, an extra that is imported when used."""
