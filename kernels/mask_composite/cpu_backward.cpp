// One pass over blocks of pixels: first the shares, then the slopes of every value, then the mask's slopes, which are
// sums over the channels of a pixel.
#include <cstddef>
#include <stdexcept>

#include <nanobind/ndarray.h>

#include "mask_composite/shares.hpp"
#include "cpu/native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;               // enough to pay for handing a part to a thread
constexpr std::int64_t block_pixels = Slice<bfloat16>::most;  // so that a run of them is a slice

template <typename T>
struct Maps {
    const T *gradient, *foreground, *background, *mask;
    T *d_foreground, *d_background, *d_mask;
};

// `product` is the gradient times the value that the mask's share multiplies. 1 - tanh^2 is computed as 4 q (1 - q),
// where q is the reciprocal of tanh's denominator, because this loses no digits if tanh is near 1.
ZELLIGE_INLINE void differentiate(const float *__restrict gradient, const float *__restrict foreground,
                                  const float *__restrict background, const float *__restrict one,
                                  const float *__restrict other, std::int64_t size, float *__restrict d_foreground,
                                  float *__restrict d_background, float *__restrict product) {
    for (std::int64_t i = 0; i < size; ++i) {
        const Fraction f = tanh_fraction<float>(foreground[i]), b = tanh_fraction<float>(background[i]);
        const float by_f = 1.0f / f.denominator, by_b = 1.0f / b.denominator;
        d_foreground[i] = gradient[i] * one[i] * (4.0f * by_f * (1.0f - by_f));
        d_background[i] = gradient[i] * other[i] * (4.0f * by_b * (1.0f - by_b));
        product[i] = gradient[i] * (f.numerator * by_f - b.numerator * by_b);
    }
}

ZELLIGE_INLINE void differentiate_finished(const float *__restrict gradient, const float *__restrict foreground,
                                           const float *__restrict background, const float *__restrict one,
                                           const float *__restrict other, std::int64_t size,
                                           float *__restrict d_foreground, float *__restrict d_background,
                                           float *__restrict product) {
    for (std::int64_t i = 0; i < size; ++i) {
        d_foreground[i] = gradient[i] * one[i];
        d_background[i] = gradient[i] * other[i];
        product[i] = gradient[i] * (foreground[i] - background[i]);
    }
}

// A constant number of channels lets the compiler shuffle whole vectors.
template <int channels>
ZELLIGE_INLINE void sum_interleaved(const float *__restrict products, std::int64_t pixels, float *__restrict sums) {
    for (std::int64_t i = 0; i < pixels; ++i) {
        float sum = products[i * channels];
        for (int c = 1; c < channels; ++c) sum += products[i * channels + c];
        sums[i] = sum;
    }
}

template <int channels>
ZELLIGE_INLINE void sum_planes(const float *__restrict products, std::int64_t pixels, float *__restrict sums) {
    for (std::int64_t i = 0; i < pixels; ++i) {
        float sum = products[i];
        for (int c = 1; c < channels; ++c) sum += products[c * pixels + i];
        sums[i] = sum;
    }
}

template <int channels>
ZELLIGE_INLINE void sum(const float *products, std::int64_t pixels, bool planar, float *sums) {
    if (planar)
        sum_planes<channels>(products, pixels, sums);
    else
        sum_interleaved<channels>(products, pixels, sums);
}

// This is a function because the compiler trusts __restrict on parameters more than on variables.
ZELLIGE_INLINE void times_shares(const float *__restrict one, const float *__restrict other, std::int64_t size,
                                 float *__restrict sums) {
    for (std::int64_t i = 0; i < size; ++i) sums[i] = sums[i] * one[i] * other[i];
}

template <typename T>
ZELLIGE_INLINE void block_body(const Work &work, const Maps<T> &maps, std::int64_t pixels) {
    BlockShares<block_pixels> shares;
    Slice<T> gradients, foregrounds, backgrounds, d_foregrounds, d_backgrounds;
    float products[most_channels * block_pixels], sums[block_pixels];
    shares.read(shares, work, maps.mask, pixels);
    const bool planar = work.plane != 0;
    // A run is `pixels` values: of one plane, or of interleaved pixels.
    for (std::int64_t run = 0; run < work.channels; ++run) {
        const std::int64_t at = run * (planar ? work.plane : pixels), share = planar ? 0 : run * pixels;
        const float *gradient = Slice<T>::read(gradients, maps.gradient + at, pixels);
        const float *foreground = Slice<T>::read(foregrounds, maps.foreground + at, pixels);
        const float *background = Slice<T>::read(backgrounds, maps.background + at, pixels);
        float *d_foreground = Slice<T>::begin(d_foregrounds, maps.d_foreground + at);
        float *d_background = Slice<T>::begin(d_backgrounds, maps.d_background + at);
        const float *one = shares.one + share, *other = shares.other + share;
        float *product = products + run * pixels;
        if (work.logits)
            differentiate(gradient, foreground, background, one, other, pixels, d_foreground, d_background, product);
        else
            differentiate_finished(gradient, foreground, background, one, other, pixels, d_foreground, d_background,
                                   product);
        Slice<T>::end(d_foregrounds, pixels, maps.d_foreground + at);
        Slice<T>::end(d_backgrounds, pixels, maps.d_background + at);
    }
    if (work.channels == 1) sum<1>(products, pixels, planar, sums);
    if (work.channels == 2) sum<2>(products, pixels, planar, sums);
    if (work.channels == 3) sum<3>(products, pixels, planar, sums);
    if (work.channels == 4) sum<4>(products, pixels, planar, sums);
    if (work.logits) times_shares(shares.shares[0], shares.shares[1], pixels, sums);
    for (std::int64_t i = 0; i < pixels; ++i) narrow(sums[i], maps.d_mask[i]);
}

ZELLIGE_CLONES void block(const Work &work, const Maps<float> &maps, std::int64_t pixels) {
    block_body(work, maps, pixels);
}

ZELLIGE_CLONES void block(const Work &work, const Maps<bfloat16> &maps, std::int64_t pixels) {
    block_body(work, maps, pixels);
}

template <typename T>
void backward(const Work &work, std::int64_t samples, std::int64_t pixels, const Maps<T> &maps) {
    const std::int64_t blocks = (pixels + block_pixels - 1) / block_pixels, sample = work.channels * pixels;
    const std::int64_t values = std::min(pixels, block_pixels) * work.channels;
    const std::int64_t step = work.plane == 0 ? work.channels : 1;
    parallel_for(samples * blocks, values_a_part / values + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
            const std::int64_t n = k / blocks, pixel = k % blocks * block_pixels;
            const std::int64_t at = n * sample + pixel * step, mask = n * pixels + pixel;
            block(work,
                  Maps<T>{maps.gradient + at, maps.foreground + at, maps.background + at, maps.mask + mask,
                          maps.d_foreground + at, maps.d_background + at, maps.d_mask + mask},
                  std::min(block_pixels, pixels - pixel));
        }
    });
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// op.py has checked shapes and dtypes. Maps come in the order of their memory: [N, H, W, C] if channels-last.
void mask_composite_backward(const Values &gradient, const Values &foreground, const Values &background,
                             const Values &mask, const Result &d_foreground, const Result &d_background,
                             const Result &d_mask, bool logits, bool channels_last) {
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
        const auto given = [](const Values &map) { return static_cast<const T *>(map.data()); };
        const auto made = [](const Result &map) { return static_cast<T *>(map.data()); };
        backward(work, samples, pixels,
                 Maps<T>{given(gradient), values, given(background), given(mask), made(d_foreground),
                         made(d_background), made(d_mask)});
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
    module.def("mask_composite_backward", &mask_composite_backward, "gradient"_a, "foreground"_a, "background"_a,
               "mask"_a, "d_foreground"_a.noconvert(), "d_background"_a.noconvert(), "d_mask"_a.noconvert(),
               "logits"_a, "channels_last"_a);
}

}  // namespace zellige
