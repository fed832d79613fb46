// SPDX-License-Identifier: GPL-2.0

//! Decisions: functions of a [`Snapshot`](crate::system::Snapshot), without further input.

pub mod memlock;
pub mod plan;
pub mod state;
pub mod why;

/// Describes a size in bytes, in the largest binary unit of which it is a multiple, or with one
/// decimal.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                decimal => format!("{}.{decimal} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(8 << 20), "8 MiB");
        assert_eq!(size((8 << 20) + (1 << 19)), "8.5 MiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }
}
