// The module zellige.kernels._native: all CPU kernels, each bound by its own folder.
#include "native.hpp"

namespace zellige {
EnterParallel enter_parallel = nullptr;
}

NB_MODULE(_native, module) {
    using namespace nanobind::literals;
    module.def(
        "use_threads",
        [](std::uintptr_t address) { zellige::enter_parallel = reinterpret_cast<zellige::EnterParallel>(address); },
        "address"_a);
    zellige::bind_affine_relu(module);
    zellige::bind_affine_relu_backward(module);
    zellige::bind_bias_noise_act(module);
    zellige::bind_bias_noise_act_backward(module);
    zellige::bind_feather_blend(module);
    zellige::bind_fir_resample(module);
    zellige::bind_glu_layer_norm(module);
    zellige::bind_glu_layer_norm_backward(module);
    zellige::bind_mask_composite(module);
    zellige::bind_mask_composite_backward(module);
    zellige::bind_phase_epilogue(module);
    zellige::bind_winograd_conv(module);
}
