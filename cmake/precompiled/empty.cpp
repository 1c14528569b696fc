// A target has a source; what counts are the precompiled headers beside it.
