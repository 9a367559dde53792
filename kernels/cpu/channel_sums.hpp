// Two sums over the pixels of every channel, for the derivatives with respect to scales and shifts.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/native.hpp"

namespace zellige {

// Sums side by side, so that the compiler can use vectors. Their number is fixed, so that all clones give equal bits.
constexpr std::int64_t sum_lanes = 32;

struct Lanes {
    float first[sum_lanes] = {}, second[sum_lanes] = {};
};

ZELLIGE_INLINE float total_of(const float *lanes) {
    double sum = 0;
    for (std::int64_t lane = 0; lane < sum_lanes; ++lane) sum += static_cast<double>(lanes[lane]);
    return static_cast<float>(sum);
}

// One float32 sum takes this many values; more would cost digits. The sums themselves are added in float64.
constexpr std::int64_t values_a_sum = 64;

// Returns the number of pixels of a part. A part is a piece of one plane, or has all channels if channels-last.
ZELLIGE_INLINE std::int64_t pixels_of_a_part(bool channels_last) {
    return channels_last ? values_a_sum : values_a_sum * sum_lanes;
}

// Calls body(i, lane) for i in [0, size).
template <typename Body>
ZELLIGE_INLINE void by_lanes(std::int64_t size, const Body &body) {
    std::int64_t i = 0;
    for (; i + sum_lanes <= size; i += sum_lanes)
        for (std::int64_t lane = 0; lane < sum_lanes; ++lane) body(i + lane, lane);
    for (std::int64_t lane = 0; i + lane < size; ++lane) body(i + lane, lane);
}

// A map is cut into parts of its pixels. Any thread sums a part, and the sums are added in order, so that the bits do
// not depend on the number of threads.
class ChannelSums {
  public:
    ChannelSums(std::int64_t samples, std::int64_t channels, std::int64_t pixels, std::int64_t pixels_a_part)
        : channels_(channels), parts_((pixels + pixels_a_part - 1) / pixels_a_part),
          room_(static_cast<std::size_t>(2 * samples * parts_ * channels)) {}

    std::int64_t parts() const { return parts_; }

    // The first sums of a part, one for each channel. The second sums follow.
    float *of(std::int64_t sample, std::int64_t part) {
        return room_.data() + 2 * (sample * parts_ + part) * channels_;
    }

    double first(std::int64_t sample, std::int64_t channel) const { return over_parts(sample, channel); }
    double second(std::int64_t sample, std::int64_t channel) const { return over_parts(sample, channels_ + channel); }

  private:
    double over_parts(std::int64_t sample, std::int64_t at) const {
        double sum = 0;
        for (std::int64_t part = 0; part < parts_; ++part)
            sum += static_cast<double>(room_[static_cast<std::size_t>(2 * (sample * parts_ + part) * channels_ + at)]);
        return sum;
    }

    std::int64_t channels_, parts_;
    std::vector<float> room_;
};

}  // namespace zellige
