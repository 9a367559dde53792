// The module zellige.kernels._native: all CPU kernels, each bound by its own file.
#include "cpu/native.hpp"

namespace zellige {
constinit EnterParallel enter_parallel = nullptr;
constinit const Binding *Binding::first = nullptr;
}  // namespace zellige

NB_MODULE(_native, module) {
    using namespace nanobind::literals;
    module.def(
        "use_threads",
        [](std::uintptr_t address) { zellige::enter_parallel = reinterpret_cast<zellige::EnterParallel>(address); },
        "address"_a);
    zellige::Binding::bind_all(module);
}
