// The module zellige.kernels._native: all CPU kernels, each bound by its own folder's cpu.cpp.
#include "native.hpp"

NB_MODULE(_native, module) { zellige::bind_feather_blend(module); }
