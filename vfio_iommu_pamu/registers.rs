// SPDX-License-Identifier: GPL-2.0

//! The register page of a PAMU: offsets, and the bits that this module uses.
//!
//! All registers are 32 bits wide and big-endian. Values in this module are in host byte order.

use kernel::prelude::*;

/// The size of a PAMU's register page in bytes. The pages of the PAMUs of an SoC are consecutive.
pub const REGISTERS_SIZE: usize = 0x1000;

/// Defines the enum of registers, and the list of all of them.
macro_rules! registers {
    ($($(#[$meta:meta])* $name:ident = $offset:literal,)*) => {
        /// A register. The value is its offset in the page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Register {
            $($(#[$meta])* $name = $offset,)*
        }

        impl Register {
            /// All registers in order of their offset, with the names of the manual.
            pub const ALL: &'static [(Self, &'static str)] = &[
                $((Self::$name, stringify!($name)),)*
            ];
        }
    };
}

registers! {
    /// Base of the PPAACT, bits 63:32.
    Ppbah = 0x00,
    /// Base of the PPAACT, bits 31:0.
    Ppbal = 0x04,
    /// End of the PPAACT (exclusive), bits 63:32.
    Pplah = 0x08,
    /// End of the PPAACT (exclusive), bits 31:0.
    Pplal = 0x0c,
    /// Base of the SPAACT, bits 63:32.
    Spbah = 0x10,
    /// Base of the SPAACT, bits 31:0.
    Spbal = 0x14,
    /// End of the SPAACT (exclusive), bits 63:32.
    Splah = 0x18,
    /// End of the SPAACT (exclusive), bits 31:0.
    Splal = 0x1c,
    /// Base of the OMT, bits 63:32.
    Obah = 0x20,
    /// Base of the OMT, bits 31:0.
    Obal = 0x24,
    /// End of the OMT (exclusive), bits 63:32.
    Olah = 0x28,
    /// End of the OMT (exclusive), bits 31:0.
    Olal = 0x2c,
    /// Operation error status 1.
    Poes1 = 0x40,
    /// Operation error status 2.
    Poes2 = 0x44,
    /// Operation error address, bits 63:32; for a violation the address of the PAACE.
    Poeah = 0x48,
    /// Operation error address, bits 31:0.
    Poeal = 0x4c,
    /// Access violation status 1: the cause of the violation, and the LIODN. See [`avs1`].
    Avs1 = 0x50,
    /// Access violation status 2.
    Avs2 = 0x54,
    /// Address of the violation, bits 63:32.
    Avah = 0x58,
    /// Address of the violation, bits 31:0.
    Aval = 0x5c,
    /// ECC error control.
    Eectl = 0x60,
    /// ECC error disable.
    Eedis = 0x64,
    /// ECC error interrupt enable.
    Eeinten = 0x68,
    /// ECC error detect.
    Eedet = 0x6c,
    /// ECC error attributes.
    Eeattr = 0x70,
    /// ECC error address, bits 63:32.
    Eeahi = 0x74,
    /// ECC error address, bits 31:0.
    Eealo = 0x78,
    /// ECC error data, bits 63:32.
    Eedhi = 0x7c,
    /// ECC error data, bits 31:0.
    Eedlo = 0x80,
    /// ECC error code.
    Eecc = 0x84,
    /// Unauthorised device access detection.
    Udad = 0x90,
    /// Revision 1.
    Pr1 = 0xbf8,
    /// Revision 2.
    Pr2 = 0xbfc,
    /// Capabilities 1.
    Pc1 = 0xc00,
    /// Capabilities 2: the largest LIODN.
    Pc2 = 0xc04,
    /// Capabilities 3: the largest number of windows.
    Pc3 = 0xc08,
    /// Capabilities 4.
    Pc4 = 0xc0c,
    /// Control. See [`pc`].
    Pc = 0xc10,
    /// Performance 1.
    Pfa1 = 0xc14,
    /// Performance 2.
    Pfa2 = 0xc18,
    /// Interrupt control and status. See [`pics`].
    Pics = 0xc1c,
    /// Debug 1.
    Pd1 = 0xf00,
    /// Debug 2.
    Pd2 = 0xf04,
    /// Debug 3.
    Pd3 = 0xf08,
    /// Debug 4.
    Pd4 = 0xf0c,
}

/// Bits of [`Register::Avs1`].
pub mod avs1 {
    /// There is a violation. The other bits and the address describe it.
    pub const AV: u32 = 0x1;
    /// The operation can't be translated.
    pub(crate) const OTV: u32 = 0x6;
    /// The access isn't permitted.
    pub(crate) const APV: u32 = 0x78;
    /// The address isn't in a window.
    pub const WAV: u32 = 0x380;
    /// The LIODN has no valid entry.
    pub const LAV: u32 = 0x1c00;
    /// The gate is closed.
    pub const GCV: u32 = 0x2000;
    /// The domain doesn't permit the access.
    pub const PDV: u32 = 0x4000;
    /// The bits that are cleared by writing them back: all but the LIODN.
    pub const STATUS: u32 = 0x7fff;
    /// The shift of the LIODN.
    pub const LIODN_SHIFT: u32 = 16;
}

/// Bits of [`Register::Pc`].
pub mod pc {
    /// The gate is closed: nothing passes the PAMU.
    pub const PGC: u32 = 0x8000_0000;
    /// The PAMU is enabled.
    pub const PE: u32 = 0x4000_0000;
    /// The operation mapping cache is enabled.
    pub(crate) const OCE: u32 = 0x1000;
    /// The cache of secondary entries is enabled.
    pub(crate) const SPCC: u32 = 0x10;
    /// The cache of primary entries is enabled.
    pub(crate) const PPCC: u32 = 0x1;
}

/// Bits of [`Register::Pics`].
pub mod pics {
    /// An access violation is pending. Writing the bit back acknowledges it.
    pub const AV: u32 = 0x8;
    /// Access violations raise an interrupt.
    pub const AV_ENABLE: u32 = 0x4;
}

/// Returns the largest LIODN of a PAMU with this [`Register::Pc2`].
pub(crate) const fn max_liodn(pc2: u32) -> u32 {
    pc2 >> 16
}

/// Returns the maximum number of windows of a LIODN with this [`Register::Pc3`]: 2 to 65536.
pub(crate) const fn max_windows(pc3: u32) -> u32 {
    1 << (1 + (pc3 >> 21 & 0xf))
}

#[kunit_tests(vfio_pamu_registers)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_words_of_the_page_and_rise() {
        let mut last = None;
        for (register, _) in Register::ALL {
            let offset = *register as usize;
            assert!(offset % 4 == 0 && offset < REGISTERS_SIZE);
            assert!(last.is_none_or(|last| last < offset));
            last = Some(offset);
        }
    }

    #[test]
    fn parts_of_the_violation_status_do_not_overlap() {
        use avs1::*;
        let parts = [AV, OTV, APV, WAV, LAV, GCV, PDV];
        assert_eq!(parts.iter().sum::<u32>(), STATUS);
        assert_eq!(parts.iter().fold(0, |all, part| all | part), STATUS);
    }

    #[test]
    fn capabilities() {
        assert_eq!(max_liodn(0x0fff_1234), 4095);
        assert_eq!(max_windows(0), 2);
        assert_eq!(max_windows(7 << 21), 256);
        assert_eq!(max_windows(0xffff_ffff), 1 << 16);
    }
}
