// Exponentials without branches, calls or tables, which the compiler turns into vector code.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "native.hpp"

namespace zellige {

// e^r for |r| <= ln 2 / 2: 1 + r + r^2 p(r), with p fitted for the least largest error, 3e-9.
ZELLIGE_INLINE float exp_of_remainder(float r) {
    float p = 0x1.6db462p-10f;
    p = p * r + 0x1.123b7ep-7f;
    p = p * r + 0x1.55545ep-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0.5f;
    return (p * (r * r) + r) + 1.0f;
}

// 1 / (1 + e^-x) within about 2 units in the last place; below e^-87.6, 0. NaN stays NaN.
// It needs e^-|x| only, whose power of two is a normal number or the pattern of 0. x = n ln 2 + r: the sum with
// 1.5 * 2^23 has no bits left for a fraction, so that it rounds, and ends in n; ln 2 comes in two parts, the first with
// so few bits that its product with n is exact. The bound is set on bits, because the compiler turns a choice between
// floats and constants into two computations.
ZELLIGE_INLINE float sigmoid_of(float x) {
    const std::int32_t magnitude = std::bit_cast<std::int32_t>(x) & 0x7fffffff;
    const float positive = std::bit_cast<float>(std::min(magnitude, std::bit_cast<std::int32_t>(88.0f)));
    constexpr float rounder = 0x1.8p23f;
    const float rounded = rounder - positive * 0x1.715476p+0f;
    const float whole = rounder - rounded;
    const float r = (whole * 0x1.63p-1f - positive) + whole * -0x1.bd0106p-13f;
    const std::int32_t n = std::bit_cast<std::int32_t>(rounded) - std::bit_cast<std::int32_t>(rounder);
    const float power = exp_of_remainder(r) * std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
    const float gate = (x < 0.0f ? power : 1.0f) / (1.0f + power);
    return x == x ? gate : x;
}

}  // namespace zellige
