// What c10d's ProcessGroupGloo.hpp names of Gloo, whose own headers LibTorch does not carry: types
// that it points to, and one base class. Only engine_gloo.cpp sees these files; the symbols are
// those of libtorch_cpu.
#pragma once
