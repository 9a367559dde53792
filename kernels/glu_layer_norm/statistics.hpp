// Mean and deviation of half the channels of a sample, and its normalised and gated values, for the kernels that need
// both.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/native.hpp"
#include "cpu/vector_math.hpp"

namespace zellige {

// A sample's normalised value is (value - centre) * inverse - shift. The mean is the centre plus a rest that float32
// cannot hold beside it. The rest is in the shift, so that a mean far above the deviation costs no precision.
struct Normal {
    float centre, inverse, shift;
};

// The normal folded with a weight and a bias for each channel: (value - centre) * scale + offset. For channels-last
// bfloat16 maps the factors are in the order of paired_place, because neighbours are computed together.
struct Folded {
    float centre;
    const float *scale, *offset;
};

// The room holds 2 * channels.
template <typename T>
Folded folded(const Normal &normal, const float *weight, const float *bias, std::int64_t channels, bool channels_last,
              float *room) {
    for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t at = channels_last && sizeof(T) == 2 ? paired_place(c, channels) : c;
        room[at] = plain_nan(normal.inverse * weight[c]);
        // If a weight is infinite, the rest of the mean is left out, because infinity less infinity would be NaN.
        const float rest = std::isinf(weight[c]) ? 0.0f : normal.shift * weight[c];
        room[channels + at] = plain_nan(bias[c] - rest);
    }
    return {normal.centre, room, room + channels};
}

template <typename T>
ZELLIGE_INLINE float gated(float left, float right, float centre, float scale, float offset) {
    return ((left - centre) * scale + offset) / one_plus_exp_of_minus<T>(right);
}

// Computes values of one channel.
ZELLIGE_INLINE void gated_run(const float *__restrict left, const float *__restrict right, std::int64_t size,
                              float centre, float scale, float offset, float *__restrict y) {
    for (std::int64_t i = 0; i < size; ++i) y[i] = gated<float>(left[i], right[i], centre, scale, offset);
}

ZELLIGE_INLINE void gated_run(const bfloat16 *__restrict left, const bfloat16 *__restrict right, std::int64_t size,
                              float centre, float scale, float offset, bfloat16 *__restrict y) {
    const std::int64_t even = size - size % 2;
    for (std::int64_t i = 0; i < even; i += 2) {
        const Pair value = widen_pair(left + i), gate = widen_pair(right + i);
        narrow_pair(gated<bfloat16>(value.first, gate.first, centre, scale, offset),
                    gated<bfloat16>(value.second, gate.second, centre, scale, offset), y + i);
    }
    if (even < size) narrow(gated<bfloat16>(widen(left[even]), widen(right[even]), centre, scale, offset), y[even]);
}

// Computes one pixel, whose gates lie behind its values.
ZELLIGE_INLINE void gated_pixel(const float *__restrict x, std::int64_t channels, const Folded &of,
                                float *__restrict y) {
    for (std::int64_t c = 0; c < channels; ++c)
        y[c] = gated<float>(x[c], x[channels + c], of.centre, of.scale[c], of.offset[c]);
}

ZELLIGE_INLINE void gated_pixel(const bfloat16 *__restrict x, std::int64_t channels, const Folded &of,
                                bfloat16 *__restrict y) {
    if (channels % 2 != 0) {
        for (std::int64_t c = 0; c < channels; ++c)
            narrow(gated<bfloat16>(widen(x[c]), widen(x[channels + c]), of.centre, of.scale[c], of.offset[c]), y[c]);
        return;
    }
    const std::int64_t pairs = channels / 2;
    for (std::int64_t k = 0; k < pairs; ++k) {
        const Pair value = widen_pair(x + 2 * k), gate = widen_pair(x + channels + 2 * k);
        narrow_pair(gated<bfloat16>(value.first, gate.first, of.centre, of.scale[k], of.offset[k]),
                    gated<bfloat16>(value.second, gate.second, of.centre, of.scale[pairs + k], of.offset[pairs + k]),
                    y + 2 * k);
    }
}

// How many values ahead memory is fetched: whole pixels, 4 KiB or a little more. It must be asked for, because parts of
// pixels are too short for the processor to see a stream in them.
template <typename T>
constexpr std::int64_t ahead_of(std::int64_t pixel) {
    return (4096 / static_cast<std::int64_t>(sizeof(T)) / pixel + 1) * pixel;
}

// Number of values, their mean, and the sum of the squares of their distances from it.
struct Moments {
    double count = 0, mean = 0, squares = 0;
};

// The layout of one sample: `runs` times, `length` values that count and `length` that do not. The values are taken in
// blocks of a fixed size, so that neither the order of threads nor their number changes a bit.
struct Runs {
    std::int64_t runs, length;

    std::int64_t values() const { return runs * length; }
    std::int64_t blocks() const;
};

Moments moments_of(const float *sample, const Runs &runs, std::int64_t block);
Moments moments_of(const bfloat16 *sample, const Runs &runs, std::int64_t block);
Moments merged(const Moments &a, const Moments &b);
Normal normal_of(const Moments &all, double eps);

constexpr std::int64_t values_a_block = 1 << 12;
constexpr std::int64_t bytes_of_one_thread = 1 << 19;  // a first half that stays in the cache of one core

// The calling thread takes the statistics of one sample.
template <typename T>
Normal normal_alone(const T *sample, const Runs &runs, double eps) {
    Moments all;
    for (std::int64_t block = 0; block < runs.blocks(); ++block) all = merged(all, moments_of(sample, runs, block));
    return normal_of(all, eps);
}

// All threads take them, with the same bits. `room` has runs.blocks() places.
template <typename T>
Normal normal_together(const T *sample, const Runs &runs, double eps, Moments *room) {
    parallel_for(runs.blocks(), 4, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t block = begin; block < end; ++block) room[block] = moments_of(sample, runs, block);
    });
    Moments all;
    for (std::int64_t block = 0; block < runs.blocks(); ++block) all = merged(all, room[block]);
    return normal_of(all, eps);
}

}  // namespace zellige
