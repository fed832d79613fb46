// SPDX-License-Identifier: GPL-2.0

//! The output format of results.

use std::fmt;
use vfio_client::Errno;

/// The outcome of a step.
#[derive(Debug)]
pub struct Outcome {
    /// The return value of the call.
    pub result: Result<i64, Errno>,
    /// The bytes of the request after the call, if it has a structure.
    pub bytes: Vec<u8>,
    /// Further results with their names.
    pub fields: Vec<(&'static str, String)>,
    /// The bitmap page, if the request has one.
    pub page: Option<Vec<u8>>,
}

impl Outcome {
    /// Creates the outcome of a call that only succeeds or fails.
    pub fn of<T, E: Into<Errno>>(result: Result<T, E>) -> Self {
        Self {
            result: result.map(|_| 0).map_err(Into::into),
            bytes: Vec::new(),
            fields: Vec::new(),
            page: None,
        }
    }

    /// Adds a result.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// Returns whether the model accepts the outcome.
    pub fn is_expected(&self) -> bool {
        self.fields.iter().all(|(name, value)| match *name {
            "unexpected" => false,
            "bitmap" => value == "expected" || value == "open",
            _ => true,
        })
    }

    /// Returns whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.result.is_ok()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.result {
            Ok(value) => write!(f, "{value}")?,
            Err(errno) => write!(f, "{errno:?}")?,
        }
        if !self.bytes.is_empty() {
            write!(f, " out={}", runs(&self.bytes))?;
        }
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// Formats bytes in hexadecimal; four or more equal bytes become `[xx*count]`.
pub fn runs(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        let byte = format!("{:02x}", run[0]);
        if run.len() < 4 {
            text += &byte.repeat(run.len());
        } else {
            text += &format!("[{byte}*{}]", run.len());
        }
    }
    text
}

/// Formats bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Parses the output of [`hex`].
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
