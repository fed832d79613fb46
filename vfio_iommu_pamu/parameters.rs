// SPDX-License-Identifier: GPL-2.0

//! Parameters of the module. They count when the PAMUs are set up.

use kernel_ext::module_param;

use crate::tables::Limits;

module_param! {
    /// How many PAMUs to have in software.
    pub(crate) static SOFTWARE: u32 = 0;
    name: "software",
    kind: "uint",
    description: "Number of PAMUs in software, for machines without any (0)."
}

module_param! {
    /// How many interrupt banks the software PAMUs have behind them.
    pub(crate) static SOFTWARE_MSI_BANKS: u32 = 3;
    name: "software_msi_banks",
    kind: "uint",
    description: "Number of MSI banks behind PAMUs in software (3)."
}

module_param! {
    /// How many LIODNs the tables have room for.
    pub(crate) static MAX_LIODNS: u32 = 1280;
    name: "max_liodns",
    kind: "uint",
    description: "Number of LIODNs (1280)."
}

module_param! {
    /// How many windows the tables have room for, the first one of each LIODN not counted.
    pub(crate) static MAX_SECONDARIES: u32 = 2048;
    name: "max_secondaries",
    kind: "uint",
    description: "Number of windows of all LIODNs, besides the first one of each (2048)."
}

module_param! {
    /// How many windows a LIODN may have.
    pub(crate) static MAX_WINDOWS: u32 = 256;
    name: "max_windows",
    kind: "uint",
    description: "Largest number of windows of a LIODN (256)."
}

/// How large the tables shall be.
pub(crate) fn limits() -> Limits {
    Limits {
        liodns: MAX_LIODNS.get(),
        secondaries: MAX_SECONDARIES.get(),
    }
}
