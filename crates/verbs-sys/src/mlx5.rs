//! The extras of NVIDIA's mlx5 that timestamps need: libmlx5.so.1.
//!
//! Read by whoever turns a device's timestamps into nanoseconds; mlx5dv_get_clock_info(3), mlx5dv_ts_to_ns(3). The functions are in
//! `Mlx5Table`.
#![expect(missing_docs, reason = "fields carry the names under which the manual pages explain them")]

use crate::layout::abi;

abi! {
    table STRUCTURES;

    /// A reading of the device's clock and how its cycles become nanoseconds.
    #[derive(Clone, Copy, Debug)]
    pub struct mlx5dv_clock_info {
        pub nsec: u64,
        pub last_cycles: u64,
        pub frac: u64,
        pub mult: u32,
        pub shift: u32,
        pub mask: u64,
    }
}

/// Nanoseconds of a device's timestamp. A timestamp further than half the clock's range after the reading counts as one before
/// it. Arithmetic wraps, as the counter does.
#[must_use]
pub const fn mlx5dv_ts_to_ns(clock: &mlx5dv_clock_info, device_timestamp: u64) -> u64 {
    let mult = clock.mult as u64;
    let after = device_timestamp.wrapping_sub(clock.last_cycles) & clock.mask;
    if after > clock.mask / 2 {
        let before = clock.last_cycles.wrapping_sub(device_timestamp) & clock.mask;
        let nsec = before.wrapping_mul(mult).wrapping_sub(clock.frac) >> (clock.shift & 63);
        clock.nsec.wrapping_sub(nsec)
    } else {
        let nsec = after.wrapping_mul(mult).wrapping_add(clock.frac) >> (clock.shift & 63);
        clock.nsec.wrapping_add(nsec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_before_the_reading_is_before_it() {
        let clock =
            mlx5dv_clock_info { nsec: 1_000, last_cycles: 50, frac: 0, mult: 8, shift: 2, mask: 0xff };
        assert_eq!(mlx5dv_ts_to_ns(&clock, 60), 1_020);
        assert_eq!(mlx5dv_ts_to_ns(&clock, 40), 980);
        let wrapped = mlx5dv_clock_info { last_cycles: 0xfe, ..clock };
        assert_eq!(mlx5dv_ts_to_ns(&wrapped, 2), 1_008);
    }
}
