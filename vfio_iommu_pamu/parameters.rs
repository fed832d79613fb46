// SPDX-License-Identifier: GPL-2.0

//! Module parameters. They are evaluated when the PAMUs are set up.

use kernel_ext::module_param;

use crate::tables::Limits;

module_param! {
    /// The number of software PAMUs.
    pub(crate) static SOFTWARE: u32 = 0;
    name: "software",
    kind: "uint",
    description: "Number of PAMUs in software, for machines without any (0)."
}

module_param! {
    /// The number of MSI banks behind the software PAMUs.
    pub(crate) static SOFTWARE_MSI_BANKS: u32 = 3;
    name: "software_msi_banks",
    kind: "uint",
    description: "Number of MSI banks behind PAMUs in software (3)."
}

module_param! {
    /// The number of LIODNs in the tables.
    pub(crate) static MAX_LIODNS: u32 = 1280;
    name: "max_liodns",
    kind: "uint",
    description: "Number of LIODNs (1280)."
}

module_param! {
    /// The number of windows in the tables, without the first window of each LIODN.
    pub(crate) static MAX_SECONDARIES: u32 = 2048;
    name: "max_secondaries",
    kind: "uint",
    description: "Number of windows of all LIODNs, besides the first one of each (2048)."
}

module_param! {
    /// The maximum number of windows of a LIODN.
    pub(crate) static MAX_WINDOWS: u32 = 256;
    name: "max_windows",
    kind: "uint",
    description: "Largest number of windows of a LIODN (256)."
}

/// Returns the sizes of the tables.
pub(crate) fn limits() -> Limits {
    Limits {
        liodns: MAX_LIODNS.get(),
        secondaries: MAX_SECONDARIES.get(),
    }
}
