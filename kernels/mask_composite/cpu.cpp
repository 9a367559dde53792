// One pass over blocks of pixels: first the shares of foreground and background, then every value times its share.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "mask_composite/shares.hpp"
#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t block_pixels = 512;       // so few that their shares stay in the first cache

// round_half_even((value + 1) * 127.5) within a byte. The first comparison is false for NaN, which becomes 0.
ZELLIGE_INLINE void store(float value, std::uint8_t &into) {
    constexpr float rounder = 0x1.8p23f;  // leaves a sum no bits for a fraction
    const float scaled = (value + 1.0f) * 127.5f;
    const float positive = scaled > 0.0f ? scaled : 0.0f;
    const float limited = positive < 255.0f ? positive : 255.0f;
    into = static_cast<std::uint8_t>(static_cast<std::int32_t>((limited + rounder) - rounder));
}

ZELLIGE_INLINE void store(float value, float &into) { narrow(value, into); }

ZELLIGE_INLINE void store(float value, bfloat16 &into) { narrow(value, into); }

// tanh(front) * one + tanh(back) * other, as exact as T. One division serves both quotients, because it takes as long
// as the rest of a tanh.
template <typename T>
ZELLIGE_INLINE float laid(float front, float back, float one, float other) {
    const Fraction f = tanh_fraction<T>(front), b = tanh_fraction<T>(back);
    const float sum = f.numerator * b.denominator * one + b.numerator * f.denominator * other;
    return sum / (f.denominator * b.denominator);
}

template <typename T, typename Out>
ZELLIGE_INLINE void composite(const T *__restrict foreground, const T *__restrict background,
                              const float *__restrict one, const float *__restrict other, std::int64_t size,
                              Out *__restrict y) {
    for (std::int64_t i = 0; i < size; ++i)
        store(laid<float>(widen(foreground[i]), widen(background[i]), one[i], other[i]), y[i]);
}

template <typename T, typename Out>
ZELLIGE_INLINE void composite_finished(const T *__restrict foreground, const T *__restrict background,
                                       const float *__restrict one, const float *__restrict other, std::int64_t size,
                                       Out *__restrict y) {
    for (std::int64_t i = 0; i < size; ++i)
        store(widen(foreground[i]) * one[i] + widen(background[i]) * other[i], y[i]);
}

template <typename T, typename Out>
ZELLIGE_INLINE void run_of_values(const T *foreground, const T *background, const float *one, const float *other,
                                  std::int64_t size, bool logits, Out *__restrict y) {
    if (!logits) {
        composite_finished(foreground, background, one, other, size, y);
    } else if constexpr (sizeof(Out) > 1) {
        composite(foreground, background, one, other, size, y);
    } else {
        // Bytes are made in a loop of their own. In a loop that stores bytes the compiler takes as many lanes as a
        // vector has bytes, and with two tanh in each lane it would run out of registers.
        float values[block_pixels];
        composite(foreground, background, one, other, size, values);
        for (std::int64_t i = 0; i < size; ++i) store(values[i], y[i]);
    }
}

template <typename T, typename Out>
ZELLIGE_INLINE void block_body(const Work &work, const T *foreground, const T *background, const T *mask,
                               std::int64_t pixels, Out *__restrict y) {
    constexpr bool bytes = sizeof(Out) == 1;
    BlockShares<block_pixels> shares;
    Out finished[bytes ? most_channels * block_pixels : 1];
    shares.read(shares, work, mask, pixels);
    const bool planar = work.plane != 0;
    // A run is `pixels` values: of one plane, or of interleaved pixels.
    for (std::int64_t run = 0; run < work.channels; ++run) {
        const std::int64_t at = run * (planar ? work.plane : pixels), share = planar ? 0 : run * pixels;
        Out *__restrict into = bytes && planar ? finished + run * block_pixels : y + at;
        run_of_values(foreground + at, background + at, shares.one + share, shares.other + share, pixels, work.logits,
                      into);
    }
    if (bytes && planar) interleaved(finished, block_pixels, work.channels, pixels, y);
}

// In bfloat16 maps two neighbours are computed together: the shares of the first neighbours, and of the second ones.
template <std::int64_t most>
struct PairShares {
    float one[2][most], other[2][most];
};

ZELLIGE_INLINE void pair_shares_of(const bfloat16 *__restrict mask, std::int64_t pixels, bool logits,
                                   float *__restrict one, float *__restrict other, float *__restrict next_one,
                                   float *__restrict next_other) {
    const auto shares = [&](float value) __attribute__((always_inline)) {
        return logits ? sigmoid_shares<bfloat16>(value) : Shares{value, 1.0f - value};
    };
    for (std::int64_t k = 0; k < pixels / 2; ++k) {
        const Pair values = widen_pair(mask + 2 * k);
        const Shares first = shares(values.first), second = shares(values.second);
        one[k] = first.one;
        other[k] = first.other;
        next_one[k] = second.one;
        next_other[k] = second.other;
    }
    if (pixels % 2 == 0) return;
    const Shares last = shares(widen(mask[pixels - 1]));
    one[pixels / 2] = next_one[pixels / 2] = last.one;
    other[pixels / 2] = next_other[pixels / 2] = last.other;
}

// Two pixels hold a pair of values for each channel. A constant number of channels lets the compiler shuffle whole
// vectors.
template <int channels>
ZELLIGE_INLINE void spread(const float *__restrict shares, const float *__restrict next_shares, std::int64_t pairs,
                           float *__restrict first, float *__restrict second) {
    for (std::int64_t k = 0; k < pairs; ++k)
        for (int c = 0; c < channels; ++c) {
            first[k * channels + c] = 2 * c < channels ? shares[k] : next_shares[k];
            second[k * channels + c] = 2 * c + 1 < channels ? shares[k] : next_shares[k];
        }
}

ZELLIGE_INLINE void spread_pairs(const float (&shares)[2][block_pixels / 2], std::int64_t channels, std::int64_t pairs,
                                 float (&into)[2][most_channels * block_pixels / 2]) {
    if (channels == 1) spread<1>(shares[0], shares[1], pairs, into[0], into[1]);
    if (channels == 2) spread<2>(shares[0], shares[1], pairs, into[0], into[1]);
    if (channels == 3) spread<3>(shares[0], shares[1], pairs, into[0], into[1]);
    if (channels == 4) spread<4>(shares[0], shares[1], pairs, into[0], into[1]);
}

template <bool logits>
ZELLIGE_INLINE void composite_pairs(const bfloat16 *__restrict foreground, const bfloat16 *__restrict background,
                                    const float *__restrict one, const float *__restrict other,
                                    const float *__restrict next_one, const float *__restrict next_other,
                                    std::int64_t size, bfloat16 *__restrict y) {
    const auto value = [](float front, float back, float one, float other) __attribute__((always_inline)) {
        return logits ? laid<bfloat16>(front, back, one, other) : front * one + back * other;
    };
    const std::int64_t pairs = size / 2;
    for (std::int64_t k = 0; k < pairs; ++k) {
        const Pair front = widen_pair(foreground + 2 * k), back = widen_pair(background + 2 * k);
        narrow_pair(value(front.first, back.first, one[k], other[k]),
                    value(front.second, back.second, next_one[k], next_other[k]), y + 2 * k);
    }
    if (size % 2)
        narrow(value(widen(foreground[size - 1]), widen(background[size - 1]), one[pairs], other[pairs]), y[size - 1]);
}

template <bool logits>
ZELLIGE_INLINE void block_of_pairs(const Work &work, const bfloat16 *foreground, const bfloat16 *background,
                                   const bfloat16 *mask, std::int64_t pixels, bfloat16 *y) {
    PairShares<block_pixels / 2> of;
    pair_shares_of(mask, pixels, logits, of.one[0], of.other[0], of.one[1], of.other[1]);
    if (work.plane == 0) {
        PairShares<most_channels * block_pixels / 2> all;
        const std::int64_t pairs = (pixels + 1) / 2;
        spread_pairs(of.one, work.channels, pairs, all.one);
        spread_pairs(of.other, work.channels, pairs, all.other);
        composite_pairs<logits>(foreground, background, all.one[0], all.other[0], all.one[1], all.other[1],
                                pixels * work.channels, y);
        return;
    }
    for (std::int64_t c = 0; c < work.channels; ++c) {
        const std::int64_t at = c * work.plane;
        composite_pairs<logits>(foreground + at, background + at, of.one[0], of.other[0], of.one[1], of.other[1],
                                pixels, y + at);
    }
}

ZELLIGE_CLONES void block(const Work &work, const float *foreground, const float *background, const float *mask,
                          std::int64_t pixels, float *y) {
    block_body(work, foreground, background, mask, pixels, y);
}

ZELLIGE_CLONES void block(const Work &work, const float *foreground, const float *background, const float *mask,
                          std::int64_t pixels, std::uint8_t *y) {
    block_body(work, foreground, background, mask, pixels, y);
}

ZELLIGE_CLONES void block(const Work &work, const bfloat16 *foreground, const bfloat16 *background,
                          const bfloat16 *mask, std::int64_t pixels, bfloat16 *y) {
    if (work.logits)
        block_of_pairs<true>(work, foreground, background, mask, pixels, y);
    else
        block_of_pairs<false>(work, foreground, background, mask, pixels, y);
}

ZELLIGE_CLONES void block(const Work &work, const bfloat16 *foreground, const bfloat16 *background,
                          const bfloat16 *mask, std::int64_t pixels, std::uint8_t *y) {
    block_body(work, foreground, background, mask, pixels, y);
}

template <typename T, typename Out>
void composite_map(const Work &work, std::int64_t samples, std::int64_t pixels, const T *foreground,
                   const T *background, const T *mask, Out *y) {
    const std::int64_t blocks = (pixels + block_pixels - 1) / block_pixels, sample = work.channels * pixels;
    const std::int64_t values = std::min(pixels, block_pixels) * work.channels;
    // A byte image is interleaved even if the inputs are not.
    const std::int64_t y_step = work.plane == 0 || sizeof(Out) == 1 ? work.channels : 1;
    const std::int64_t x_step = work.plane == 0 ? work.channels : 1;
    parallel_for(samples * blocks, long_grain(samples * blocks, values_a_part / values + 1), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t n = k / blocks, pixel = k % blocks * block_pixels;
            const std::int64_t at = n * sample + pixel * x_step;
            block(work, foreground + at, background + at, mask + n * pixels + pixel,
                  std::min(block_pixels, pixels - pixel), y + n * sample + pixel * y_step);
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void mask_composite(const Values &foreground, const Values &background, const Values &mask, const Result &y,
                    bool logits, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(foreground.shape(axis)); };
    std::int64_t samples = extent(0), pixels = extent(1) * extent(2);
    Work work{extent(3), 0, logits};
    if (channels_last) {
        pixels *= samples;  // pixels of all samples lie in one row
        samples = 1;
    } else {
        pixels = extent(2) * extent(3);
        work = {extent(1), pixels, logits};
    }
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto into = [&](auto *result) {
            composite_map(work, samples, pixels, values, static_cast<const T *>(background.data()),
                          static_cast<const T *>(mask.data()), result);
        };
        if (y.dtype() == nb::dtype<std::uint8_t>())
            into(static_cast<std::uint8_t *>(y.data()));
        else
            into(static_cast<T *>(y.data()));
    };
    const nb::dlpack::dtype dtype = foreground.dtype();
    if (dtype == nb::dtype<float>())
        run(static_cast<const float *>(foreground.data()));
    else if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && dtype.bits == 16)
        run(static_cast<const bfloat16 *>(foreground.data()));
    else
        throw std::invalid_argument("foreground must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("mask_composite", &mask_composite, "foreground"_a, "background"_a, "mask"_a, "y"_a.noconvert(),
               "logits"_a, "channels_last"_a);
}

}  // namespace zellige
