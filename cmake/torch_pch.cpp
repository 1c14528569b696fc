// Carries the precompiled torch header; see torch_pch.h.
