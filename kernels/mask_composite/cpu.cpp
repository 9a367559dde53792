// One pass over blocks of pixels: the shares of foreground and background first, then every value under its share.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "mask_composite/shares.hpp"
#include "native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 15;  // enough to pay for handing a part to a thread
constexpr std::int64_t block_pixels = 512;       // whose shares stay in the first-level cache

// round_half_even((value + 1) * 127.5) within a byte. The first comparison is false for NaN, which becomes 0.
ZELLIGE_INLINE void store(float value, std::uint8_t &into) {
    const float scaled = (value + 1.0f) * 127.5f;
    const float positive = scaled > 0.0f ? scaled : 0.0f;
    const float limited = positive < 255.0f ? positive : 255.0f;
    into = static_cast<std::uint8_t>(static_cast<std::int32_t>((limited + rounder) - rounder));
}

ZELLIGE_INLINE void store(float value, float &into) { narrow(value, into); }

ZELLIGE_INLINE void store(float value, bfloat16 &into) { narrow(value, into); }

// Both quotients over one denominator: a division takes as long as the rest of a tanh.
template <typename T, typename Out>
ZELLIGE_INLINE void composite(const T *__restrict foreground, const T *__restrict background,
                              const float *__restrict one, const float *__restrict other, std::int64_t size,
                              Out *__restrict y) {
    for (std::int64_t i = 0; i < size; ++i) {
        const float front = widen(foreground[i]), back = widen(background[i]);
        const Fraction f = tanh_fraction(front), b = tanh_fraction(back);
        const float sum = f.numerator * b.denominator * one[i] + b.numerator * f.denominator * other[i];
        store(sum / (f.denominator * b.denominator), y[i]);
    }
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
        // Bytes are made in a loop of their own: where one is stored the compiler takes as many lanes as a vector has
        // bytes, and for two tanh in each it runs out of registers.
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
    // A run is a row of one plane, or as many values of interleaved pixels.
    for (std::int64_t run = 0; run < work.channels; ++run) {
        const std::int64_t at = run * (planar ? work.plane : pixels), share = planar ? 0 : run * pixels;
        Out *__restrict into = bytes && planar ? finished + run * block_pixels : y + at;
        run_of_values(foreground + at, background + at, shares.one + share, shares.other + share,
                      pixels, work.logits, into);
    }
    if (bytes && planar) interleaved(finished, block_pixels, work.channels, pixels, y);
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
    block_body(work, foreground, background, mask, pixels, y);
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
    // A byte image is interleaved whatever the inputs are.
    const std::int64_t y_step = work.plane == 0 || sizeof(Out) == 1 ? work.channels : 1;
    const std::int64_t x_step = work.plane == 0 ? work.channels : 1;
    parallel_for(samples * blocks, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
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

// Trusts op.py for shapes and dtypes; maps come in the order of their memory, [N, H, W, C] when channels-last.
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

void bind_mask_composite(nb::module_ &module) {
    using namespace nb::literals;
    module.def("mask_composite", &mask_composite, "foreground"_a, "background"_a, "mask"_a, "y"_a.noconvert(),
               "logits"_a, "channels_last"_a);
}

}  // namespace zellige
