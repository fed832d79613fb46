// SPDX-License-Identifier: GPL-2.0

//! IOMMU faults in the kernel log.

use anyhow::{
    Context,
    Result, //
};
use std::{
    fs::File,
    io::{
        ErrorKind,
        Read,
        Seek,
        SeekFrom, //
    },
    os::unix::fs::OpenOptionsExt,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

/// `O_NONBLOCK` on all architectures that have an IOMMU with a type 1 backend.
const NONBLOCK: i32 = 0o4000;

/// The kernel log from a given moment on.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Starts after the last record.
    pub fn follow() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(Self(file))
    }

    /// Returns the text of the next record, or `None` if there is none.
    fn record(&mut self) -> Result<Option<String>> {
        let mut buffer = vec![0; 8192];
        loop {
            match self.0.read(&mut buffer) {
                Ok(len) => {
                    let record = String::from_utf8_lossy(&buffer[..len]);
                    let text = record.split_once(';').map_or("", |(_, text)| text);
                    return Ok(Some(text.lines().next().unwrap_or("").to_owned()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // Records were overwritten before they were read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }

    /// Waits for a log line about a fault of a device. Returns `None` on timeout.
    pub fn wait_for_fault(&mut self, bdf: &str, timeout: Duration) -> Result<Option<Fault>> {
        let start = Instant::now();
        loop {
            while let Some(line) = self.record()? {
                if let Some(fault) = Fault::parse(&line, bdf) {
                    return Ok(Some(fault));
                }
            }
            if start.elapsed() > timeout {
                return Ok(None);
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// A log line about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line.
    pub line: String,
    /// The address of the access, if the line contains it.
    pub address: Option<u64>,
}

impl Fault {
    /// Parses lines of the VT-d, AMD-Vi and SMMUv3 drivers.
    pub fn parse(line: &str, bdf: &str) -> Option<Self> {
        let short = bdf.split_once(':').map_or(bdf, |(_, rest)| rest);
        let intel = line.contains("DMAR") && line.contains("fault addr");
        let amd = line.contains("IO_PAGE_FAULT");
        let smmu = line.contains("arm-smmu-v3") && line.contains(" client: ");
        if !(intel || amd || smmu) || !(line.contains(short)) {
            return None;
        }
        let after = |key: &str| Some(line.split_once(key)?.1);
        let address = after("fault addr 0x")
            .or_else(|| after("address=0x"))
            .or_else(|| after(" iova: 0x"));
        let address = address.and_then(|text| {
            let end = text.find(|c: char| !c.is_ascii_hexdigit());
            u64::from_str_radix(&text[..end.unwrap_or(text.len())], 16).ok()
        });
        Some(Self {
            line: line.to_owned(),
            address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BDF: &str = "0000:00:04.0";

    #[test]
    fn vt_d() {
        let line = "DMAR: [DMA Write NO_PASID] Request device [0000:00:04.0] fault addr \
                    0x41000000 [fault reason 0x05] PTE Write access is not set";
        let fault = Fault::parse(line, BDF);
        assert_eq!(fault.and_then(|f| f.address), Some(0x4100_0000));
        assert_eq!(Fault::parse(line, "0000:00:05.0"), None);
    }

    #[test]
    fn amd_vi() {
        let line = "vfio-pci 0000:00:04.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0008 \
                    address=0x41000000 flags=0x0020]";
        let fault = Fault::parse(line, BDF);
        assert_eq!(fault.and_then(|f| f.address), Some(0x4100_0000));
    }

    #[test]
    fn smmu_v3() {
        let line = "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:00:04.0 sid: 0x20 \
                    ssid: 0x0 iova: 0x41000000 ipa: 0x0";
        let fault = Fault::parse(line, BDF);
        assert_eq!(fault.and_then(|f| f.address), Some(0x4100_0000));
        assert_eq!(Fault::parse(line, "0000:00:05.0"), None);
    }

    #[test]
    fn other_lines() {
        assert_eq!(
            Fault::parse("DMAR: DRHD: handling fault status reg 2", BDF),
            None
        );
        assert_eq!(Fault::parse("vfio-pci 0000:00:04.0: reset done", BDF), None);
        assert_eq!(
            Fault::parse("arm-smmu-v3 9050000.smmuv3: event 0x10 received:", BDF),
            None
        );
    }
}
