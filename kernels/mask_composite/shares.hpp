// The shares of foreground and background of a block of pixels, in the order of its values, for both passes of
// mask_composite.
#pragma once

#include "cpu/native.hpp"
#include "cpu/vector_math.hpp"

namespace zellige {

constexpr std::int64_t most_channels = 4;

struct Work {
    std::int64_t channels, plane;  // plane: values between the planes of a sample; 0 if pixels are interleaved
    bool logits;
};

template <typename T>
ZELLIGE_INLINE void shares_of(const T *__restrict mask, std::int64_t pixels, bool logits, float *__restrict one,
                              float *__restrict other) {
    if (logits) {
        for (std::int64_t i = 0; i < pixels; ++i) {
            const Shares shares = sigmoid_shares<float>(widen(mask[i]));
            one[i] = shares.one;
            other[i] = shares.other;
        }
    } else {
        for (std::int64_t i = 0; i < pixels; ++i) {
            one[i] = widen(mask[i]);
            other[i] = 1.0f - one[i];
        }
    }
}

// A constant number of channels lets the compiler shuffle whole vectors.
template <int channels, typename T>
ZELLIGE_INLINE void interleave(const T *__restrict planes, std::int64_t stride, std::int64_t pixels,
                               T *__restrict into) {
    for (std::int64_t i = 0; i < pixels; ++i)
        for (int c = 0; c < channels; ++c) into[i * channels + c] = planes[c * stride + i];
}

template <typename T>
ZELLIGE_INLINE void interleaved(const T *planes, std::int64_t stride, std::int64_t channels, std::int64_t pixels,
                                T *into) {
    if (channels == 1) interleave<1>(planes, stride, pixels, into);
    if (channels == 2) interleave<2>(planes, stride, pixels, into);
    if (channels == 3) interleave<3>(planes, stride, pixels, into);
    if (channels == 4) interleave<4>(planes, stride, pixels, into);
}

// Shares in the order of the values: if pixels are interleaved, each share is repeated for all channels.
template <std::int64_t most>
struct BlockShares {
    float shares[2][most], spread[2][most_channels * most];
    const float *one, *other;

    template <typename T>
    ZELLIGE_INLINE void read(BlockShares &of, const Work &work, const T *mask, std::int64_t pixels) {
        shares_of(mask, pixels, work.logits, of.shares[0], of.shares[1]);
        of.one = of.shares[0];
        of.other = of.shares[1];
        if (work.plane != 0) return;
        interleaved(of.one, 0, work.channels, pixels, of.spread[0]);
        interleaved(of.other, 0, work.channels, pixels, of.spread[1]);
        of.one = of.spread[0];
        of.other = of.spread[1];
    }
};

}  // namespace zellige
