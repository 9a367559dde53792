// The map and the noise as both passes of bias_noise_act see them, and how they take pixels of few channels.
#pragma once

#include <vector>

#include "cpu/native.hpp"

namespace zellige {

constexpr std::int64_t most = Slice<bfloat16>::most;

struct Act {
    float slope, gain;
    float clamp = std::numeric_limits<float>::infinity();  // bound of the result, which changes nothing if infinite
};

// A comparison with NaN is false, so NaN is multiplied by the slope, is not clamped, and stays NaN.
ZELLIGE_INLINE float act(float value, Act by) {
    const float y = by.gain * (value >= 0.0f ? value : by.slope * value);
    const float below = y > by.clamp ? by.clamp : y;
    return below < -by.clamp ? -by.clamp : below;
}

struct Map {
    std::int64_t samples, channels, pixels;
};

struct Noise {
    const float *values;  // null: none
    std::int64_t stride;  // from one sample to the next; 0 if they share the noise
    float strength;

    const float *at(std::int64_t sample, std::int64_t pixel) const {
        return values ? values + sample * stride + pixel : nullptr;
    }
};

// A factor for each channel of each sample. Without any they are 1, which changes no bit of a product.
class Factors {
  public:
    Factors(const float *values, std::int64_t channels)
        : values_(values), ones_(values ? 0 : static_cast<std::size_t>(channels), 1.0f), channels_(channels) {}

    const float *of(std::int64_t sample) const { return values_ ? values_ + sample * channels_ : ones_.data(); }

  private:
    const float *values_;
    std::vector<float> ones_;
    std::int64_t channels_;
};

// Pixels with fewer channels than this are taken together, as many as a slice holds, with a row of biases and a row of
// specks. A speck is a pixel's noise times the strength. Multiples of sixteen pixels fill whole vectors.
constexpr std::int64_t few_channels = 32;

ZELLIGE_INLINE std::int64_t pixels_together(std::int64_t channels) {
    const std::int64_t pixels = most / channels;
    return pixels > 16 ? pixels / 16 * 16 : pixels;
}

// Writes the biases of `pixels` pixels one after the other.
ZELLIGE_INLINE void repeat(const float *bias, std::int64_t pixels, std::int64_t channels, float *into) {
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
        for (std::int64_t c = 0; c < channels; ++c) into[pixel * channels + c] = bias[c];
}

template <int constant>
ZELLIGE_INLINE void spread_over(const float *__restrict noise, float strength, std::int64_t pixels,
                                std::int64_t any, float *__restrict specks) {
    const std::int64_t channels = constant ? constant : any;
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
        for (std::int64_t c = 0; c < channels; ++c) specks[pixel * channels + c] = strength * noise[pixel];
}

// Writes every pixel's speck once for each of its channels.
ZELLIGE_INLINE void spread(const float *noise, float strength, std::int64_t pixels, std::int64_t channels,
                           float *specks) {
    if (channels == 3)  // pictures; a constant count makes vector code
        spread_over<3>(noise, strength, pixels, channels, specks);
    else
        spread_over<0>(noise, strength, pixels, channels, specks);
}

}  // namespace zellige
