// Rows of a map whose factors lie on straight lines between given rows of factors, and a map to add.
#include <cstddef>
#include <optional>
#include <stdexcept>

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include "affine_relu/affine.hpp"

namespace nb = nanobind;

namespace zellige {
namespace {

constexpr std::int64_t values_a_part = 1 << 14;

// The factors of one row: those of two given rows, and the share of the second one. A share of 0 leaves the second
// unread.
struct Between {
    const float *scale, *shift, *next_scale, *next_shift;
    float share;
};

ZELLIGE_INLINE float mixed(float here, float next, float share) { return here + (next - here) * share; }

template <bool between, bool plus, typename T>
ZELLIGE_INLINE void row_body(const T *__restrict x, const T *__restrict added, std::int64_t size, const Between &of,
                             T *__restrict y) {
    const float *__restrict scale = of.scale, *__restrict shift = of.shift;
    const float *__restrict next_scale = of.next_scale, *__restrict next_shift = of.next_shift;
    for (std::int64_t i = 0; i < size; ++i) {
        const float a = between ? mixed(scale[i], next_scale[i], of.share) : scale[i];
        const float b = between ? mixed(shift[i], next_shift[i], of.share) : shift[i];
        narrow(affine(widen(x[i]), a, plus ? b + widen(added[i]) : b), y[i]);
    }
}

template <typename T>
ZELLIGE_INLINE void row_choice(const T *x, const T *added, std::int64_t size, const Between &of, T *y) {
    if (of.share != 0.0f)
        added ? row_body<true, true>(x, added, size, of, y) : row_body<true, false>(x, x, size, of, y);
    else
        added ? row_body<false, true>(x, added, size, of, y) : row_body<false, false>(x, x, size, of, y);
}

ZELLIGE_CLONES void row_of(const float *x, const float *added, std::int64_t size, const Between &of, float *y) {
    row_choice(x, added, size, of, y);
}

ZELLIGE_CLONES void row_of(const bfloat16 *x, const bfloat16 *added, std::int64_t size, const Between &of,
                           bfloat16 *y) {
    row_choice(x, added, size, of, y);
}

using Values = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Factors = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// rows.py has checked shapes and dtypes. Maps and factors come in the order of their memory: [N, H, W, C] and
// [N, R, W, C] if channels-last.
void affine_relu_rows(const Values &x, const Factors &scale, const Factors &shift, const std::optional<Values> &plus,
                      std::int64_t every, std::int64_t first, const Result &y, bool channels_last) {
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(x.shape(axis)); };
    // A line is a row of all channels, or of a single one.
    const std::int64_t rows = extent(channels_last ? 1 : 2), maps = extent(0) * (channels_last ? 1 : extent(1));
    const std::int64_t line = extent(3) * (channels_last ? extent(2) : 1);
    const std::int64_t given = static_cast<std::int64_t>(scale.shape(channels_last ? 1 : 2));
    const auto run = [&]<typename T>(const T *values) {
        nb::gil_scoped_release unlocked;
        const T *added = plus ? static_cast<const T *>(plus->data()) : nullptr;
        T *into = static_cast<T *>(y.data());
        parallel_for(maps * rows, values_a_part / line + 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t k = begin; k < end; ++k) {
                // Places are in parts of 1 / (2 every).
                const std::int64_t place = given == 1 ? 0 : 2 * (first + k % rows) + 1 - every, period = 2 * every;
                const std::int64_t at = (k / rows * given + place / period) * line;
                const std::int64_t next = place % period == 0 ? at : at + line;
                const Between of{scale.data() + at, shift.data() + at, scale.data() + next, shift.data() + next,
                                 static_cast<float>(place % period) / static_cast<float>(period)};
                row_of(values + k * line, added ? added + k * line : nullptr, line, of, into + k * line);
            }
        });
    };
    if (x.dtype() == nb::dtype<float>())
        run(static_cast<const float *>(x.data()));
    else if (x.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && x.dtype().bits == 16)
        run(static_cast<const bfloat16 *>(x.data()));
    else
        throw std::invalid_argument("x must be float32 or bfloat16");
}

}  // namespace

ZELLIGE_BINDINGS(module) {
    using namespace nb::literals;
    module.def("affine_relu_rows", &affine_relu_rows, "x"_a, "scale"_a, "shift"_a, "plus"_a.none(), "every"_a, "first"_a,
               "y"_a.noconvert(), "channels_last"_a);
}

}  // namespace zellige
