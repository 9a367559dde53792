// The weighted mean of overlapping patches, one picture row at a time: the sums of a row stay in the cache while all
// patches that cover it are added, in index order. Threads take bands of rows.
#include <algorithm>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <vector>

#include <nanobind/ndarray.h>

#include "native.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

// Patch lists are rebuilt once a band, so that a row looks only at patches near it and not at all of them.
constexpr std::int64_t band_rows = 32;

// A row of patches is either `channels` planes of single values (NCHW) or one plane of interleaved pixels
// (channels-last). Sums are kept in the same order, so that both are added as flat, contiguous arrays.
struct RowLayout {
    std::int64_t planes;
    std::int64_t lanes;  // values of one pixel next to each other: planes * lanes = channels
};

struct PatchStrides {
    std::int64_t patch, plane, row;
};

template <typename T>
ZELLIGE_INLINE void add_row_body(float *__restrict sums, std::int64_t sums_stride, float *__restrict totals,
                                 const float *__restrict window, float row_weight, const T *__restrict patch,
                                 std::int64_t patch_stride, std::int64_t planes, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) totals[i] += row_weight * window[i];
    for (std::int64_t plane = 0; plane < planes; ++plane) {
        float *__restrict sum = sums + plane * sums_stride;
        const T *__restrict values = patch + plane * patch_stride;
        for (std::int64_t i = 0; i < size; ++i) sum[i] += (row_weight * window[i]) * widen(values[i]);
    }
}

ZELLIGE_CLONES void add_row(float *sums, std::int64_t sums_stride, float *totals, const float *window,
                            float row_weight, const float *patch, std::int64_t patch_stride, std::int64_t planes,
                            std::int64_t size) {
    add_row_body(sums, sums_stride, totals, window, row_weight, patch, patch_stride, planes, size);
}

ZELLIGE_CLONES void add_row(float *sums, std::int64_t sums_stride, float *totals, const float *window,
                            float row_weight, const bfloat16 *patch, std::int64_t patch_stride, std::int64_t planes,
                            std::int64_t size) {
    add_row_body(sums, sums_stride, totals, window, row_weight, patch, patch_stride, planes, size);
}

ZELLIGE_CLONES void add_row(float *sums, std::int64_t sums_stride, float *totals, const float *window,
                            float row_weight, const float16 *patch, std::int64_t patch_stride, std::int64_t planes,
                            std::int64_t size) {
    add_row_body(sums, sums_stride, totals, window, row_weight, patch, patch_stride, planes, size);
}

ZELLIGE_INLINE float mean_of(float sum, float total) { return total > 0.0f ? sum / total : 0.0f; }

// round_half_even((value + 1) * 127.5) within a byte. Adding 1.5 * 2^23 leaves no bit for a fraction, so the addition
// itself rounds, half to even; unlike std::nearbyint that is a vector operation on every instruction set. The first
// comparison is false for NaN, which becomes 0.
ZELLIGE_INLINE std::uint8_t byte_of(float value) {
    const float scaled = (value + 1.0f) * 127.5f;
    const float positive = scaled > 0.0f ? scaled : 0.0f;
    const float limited = positive < 255.0f ? positive : 255.0f;
    return static_cast<std::uint8_t>(static_cast<std::int32_t>((limited + 12582912.0f) - 12582912.0f));
}

template <int planes, typename T>
ZELLIGE_INLINE void interleave(const T *__restrict row, std::int64_t size, T *__restrict picture) {
    for (std::int64_t i = 0; i < size; ++i)
        for (int plane = 0; plane < planes; ++plane) picture[i * planes + plane] = row[plane * size + i];
}

// Constant plane counts let the compiler shuffle whole vectors.
template <typename T>
ZELLIGE_INLINE void store(const T *row, std::int64_t planes, std::int64_t size, T *picture) {
    if (planes == 1) interleave<1>(row, size, picture);
    if (planes == 2) interleave<2>(row, size, picture);
    if (planes == 3) interleave<3>(row, size, picture);
    if (planes == 4) interleave<4>(row, size, picture);
}

ZELLIGE_CLONES void finish_row(float *__restrict sums, const float *__restrict totals, std::int64_t planes,
                               std::int64_t size, float *__restrict row, float *__restrict picture) {
    for (std::int64_t plane = 0; plane < planes; ++plane)
        for (std::int64_t i = 0; i < size; ++i) row[plane * size + i] = mean_of(sums[plane * size + i], totals[i]);
    store(row, planes, size, picture);
}

ZELLIGE_CLONES void finish_row(float *__restrict sums, const float *__restrict totals, std::int64_t planes,
                               std::int64_t size, std::uint8_t *__restrict row, std::uint8_t *__restrict picture) {
    for (std::int64_t plane = 0; plane < planes; ++plane)
        for (std::int64_t i = 0; i < size; ++i)
            row[plane * size + i] = byte_of(mean_of(sums[plane * size + i], totals[i]));
    store(row, planes, size, picture);
}

struct Geometry {
    std::int64_t patches, channels, patch_rows, patch_columns, height, width;
};

template <typename T, typename Pixel>
void blend(const Geometry &size, RowLayout layout, PatchStrides strides, const T *patches,
           const std::int64_t *positions, const float *window_rows, const float *window_columns, Pixel *picture) {
    const std::int64_t row_size = size.width * layout.lanes;
    std::vector<float> window(static_cast<std::size_t>(size.patch_columns * layout.lanes));
    for (std::size_t i = 0; i < window.size(); ++i) window[i] = window_columns[i / layout.lanes];
    const auto blend_rows = [&](std::int64_t band) {
        std::vector<float> sums(static_cast<std::size_t>(row_size * layout.planes));
        std::vector<float> totals(static_cast<std::size_t>(row_size));
        std::vector<Pixel> finished(sums.size());
        std::vector<std::int64_t> near;
        const std::int64_t band_end = std::min(band + band_rows, size.height);
        for (std::int64_t n = 0; n < size.patches; ++n) {
            const std::int64_t top = positions[2 * n], left = positions[2 * n + 1];
            // Positions are compared before anything is added to them: any int64 may be given.
            if (top < band_end && top > band - size.patch_rows && left < size.width && left > -size.patch_columns)
                near.push_back(n);
        }
        for (std::int64_t y = band; y < band_end; ++y) {
            // -0.0 is the neutral element: -0.0 + x is x for every x, and 0.0 + -0.0 would lose a sign.
            std::fill(sums.begin(), sums.end(), -0.0f);
            std::fill(totals.begin(), totals.end(), 0.0f);
            for (const std::int64_t n : near) {
                const std::int64_t patch_row = y - positions[2 * n];
                if (patch_row < 0 || patch_row >= size.patch_rows) continue;
                const std::int64_t left = positions[2 * n + 1];
                const std::int64_t begin = std::max<std::int64_t>(left, 0);
                const std::int64_t end = std::min(left + size.patch_columns, size.width);
                const std::int64_t picture_at = begin * layout.lanes, patch_at = (begin - left) * layout.lanes;
                add_row(sums.data() + picture_at, row_size, totals.data() + picture_at, window.data() + patch_at,
                        window_rows[patch_row], patches + n * strides.patch + patch_row * strides.row + patch_at,
                        strides.plane, layout.planes, (end - begin) * layout.lanes);
            }
            finish_row(sums.data(), totals.data(), layout.planes, row_size, finished.data(),
                       picture + y * size.width * size.channels);
        }
    };
    std::atomic<bool> failed = false;
    parallel_for(size.height, band_rows, [&](std::int64_t begin, std::int64_t) {
        try {
            blend_rows(begin);
        } catch (const std::bad_alloc &) {  // must not leave the thread that it was thrown in
            failed = true;
        }
    });
    if (failed) throw std::bad_alloc();
}

using Patches = nb::ndarray<nb::ro, nb::ndim<4>, nb::device::cpu>;
using Positions = nb::ndarray<const std::int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Window = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Picture = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// Trusts op.py for the shapes, and for pixels that are contiguous along the row in one of the two layouts.
void feather_blend(const Patches &patches, const Positions &positions, const Window &window_rows,
                   const Window &window_columns, const Picture &picture) {
    const auto extent = [](const auto &array, std::size_t axis) { return static_cast<std::int64_t>(array.shape(axis)); };
    const Geometry size{extent(patches, 0), extent(patches, 1), extent(patches, 2),
                        extent(patches, 3), extent(picture, 0), extent(picture, 1)};
    const bool planar = size.patch_columns == 1 || patches.stride(3) == 1;
    const RowLayout layout = planar ? RowLayout{size.channels, 1} : RowLayout{1, size.channels};
    const PatchStrides strides{patches.stride(0), patches.stride(1), patches.stride(2)};

    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const auto into = [&](auto *pixels) {
            blend(size, layout, strides, values, positions.data(), window_rows.data(), window_columns.data(), pixels);
        };
        if (picture.dtype() == nb::dtype<std::uint8_t>())
            into(static_cast<std::uint8_t *>(picture.data()));
        else
            into(static_cast<float *>(picture.data()));
    };
    const nb::dlpack::dtype dtype = patches.dtype();
    if (dtype == nb::dtype<float>())
        run(static_cast<const float *>(patches.data()));
    else if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && dtype.bits == 16)
        run(static_cast<const bfloat16 *>(patches.data()));
    else if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && dtype.bits == 16)
        run(static_cast<const float16 *>(patches.data()));
    else
        throw std::invalid_argument("patches must be float32, float16 or bfloat16");
}

}  // namespace

void bind_feather_blend(nb::module_ &module) {
    using namespace nb::literals;
    module.def("feather_blend", &feather_blend, "patches"_a, "positions"_a, "window_rows"_a, "window_columns"_a,
               "picture"_a.noconvert());
}

}  // namespace zellige
