// Scale, shift and ReLU of pixels, for the kernels that apply them.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/native.hpp"

namespace zellige {

// Comparisons with NaN are false, so NaN stays.
ZELLIGE_INLINE float affine(float x, float scale, float shift) {
    const float value = x * scale + shift;
    return value < 0.0f ? 0.0f : value;
}

// Computes all channels of one pixel. For bfloat16 the factors come in the order of paired_place.
ZELLIGE_INLINE void affine_pixel(const float *__restrict x, std::int64_t channels, const float *__restrict scale,
                                 const float *__restrict shift, float *__restrict y) {
    for (std::int64_t c = 0; c < channels; ++c) y[c] = affine(x[c], scale[c], shift[c]);
}

ZELLIGE_INLINE void affine_pixel(const bfloat16 *__restrict x, std::int64_t channels, const float *__restrict scale,
                                 const float *__restrict shift, bfloat16 *__restrict y) {
    if (channels % 2 != 0) {
        for (std::int64_t c = 0; c < channels; ++c) narrow(affine(widen(x[c]), scale[c], shift[c]), y[c]);
        return;
    }
    const std::int64_t pairs = channels / 2;
    for (std::int64_t k = 0; k < pairs; ++k) {
        const Pair pair = widen_pair(x + 2 * k);
        narrow_pair(affine(pair.first, scale[k], shift[k]), affine(pair.second, scale[pairs + k], shift[pairs + k]),
                    y + 2 * k);
    }
}

// Returns the factors of all samples as the loops over T take them. For bfloat16 every NaN is one that narrow_pair can
// take, and in channels-last maps the factors come in the order of paired_place.
template <typename T>
const float *prepared(const float *factors, std::int64_t samples, std::int64_t channels, bool channels_last,
                      std::vector<float> &room) {
    if constexpr (sizeof(T) == 4) return factors;
    room.resize(static_cast<std::size_t>(samples * channels));
    const std::int64_t half = channels_last && channels % 2 == 0 ? channels / 2 : 0;
    for (std::int64_t n = 0; n < samples; ++n) {
        const float *from = factors + n * channels;
        float *into = room.data() + n * channels;
        for (std::int64_t k = 0; k < half; ++k) {
            into[k] = plain_nan(from[2 * k]);
            into[half + k] = plain_nan(from[2 * k + 1]);
        }
        for (std::int64_t c = 2 * half; c < channels; ++c) into[c] = plain_nan(from[c]);
    }
    return room.data();
}

}  // namespace zellige
