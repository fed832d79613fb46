// SPDX-License-Identifier: GPL-2.0

//! Reports events to the host. An input is reported before it runs: if the kernel dies, the host
//! knows the input.

use crate::{
    corpus::hex,
    coverage::Coverage, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs::{
        self,
        File, //
    },
    io::Write, //
};

/// The output port.
#[derive(Debug)]
pub struct Events(File);

impl Events {
    /// Opens a virtio port of the machine by its name.
    pub fn open(name: &str) -> Result<Self> {
        let class = "/sys/class/virtio-ports";
        for port in fs::read_dir(class).context(class)? {
            let port = port?;
            let is = fs::read_to_string(port.path().join("name"))?;
            if is.trim() == name {
                let path = format!("/dev/{}", port.file_name().to_string_lossy());
                let file = File::options().write(true).open(&path).context(path)?;
                return Ok(Self(file));
            }
        }
        anyhow::bail!("the machine has no virtio port {name}")
    }

    fn tell(&mut self, line: String) -> Result<()> {
        self.0
            .write_all(format!("{line}\n").as_bytes())
            .context("writing to the virtio port")
    }

    /// Reports that an input is about to run.
    pub fn run(&mut self, input: &[u8]) -> Result<()> {
        self.tell(format!("run {}", hex(input)))
    }

    /// Reports that an input reached new code.
    pub fn keep(&mut self, input: &[u8]) -> Result<()> {
        self.tell(format!("keep {}", hex(input)))
    }

    /// Reports that an input found a defect.
    #[cfg(feature = "engine")]
    pub fn found(&mut self, input: &[u8], words: &str) -> Result<()> {
        self.tell(format!("found {} {words}", hex(input)))
    }

    /// Reports the number of inputs executed.
    #[cfg(feature = "engine")]
    pub fn runs(&mut self, count: u64) -> Result<()> {
        self.tell(format!("runs {count}"))
    }

    /// Reports the total coverage.
    pub fn coverage(&mut self, coverage: &Coverage) -> Result<()> {
        for (module, functions) in coverage.reached() {
            for (function, points) in functions {
                self.tell(format!("reached {module} {function} {points}"))?;
            }
        }
        Ok(())
    }
}
