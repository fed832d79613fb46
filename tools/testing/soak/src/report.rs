// SPDX-License-Identifier: GPL-2.0

//! The checks and their results.

use anyhow::Result;
use std::process::ExitCode;

/// The checks by name, in the order in which they were first made, each with its failures.
#[derive(Debug, Default)]
pub struct Report {
    round: u64,
    checks: Vec<(String, Vec<String>)>,
}

impl Report {
    /// Starts a round. Later failures are attributed to it.
    pub fn begin(&mut self, round: u64) {
        self.round = round;
    }

    /// Records the outcome of a check. Prints a failure immediately.
    pub fn check(&mut self, name: impl Into<String>, outcome: Result<()>) {
        let name = name.into();
        let known = self.checks.iter().position(|(known, _)| *known == name);
        let index = known.unwrap_or_else(|| {
            self.checks.push((name.clone(), Vec::new()));
            self.checks.len() - 1
        });
        if let Err(error) = outcome {
            let text = format!("round {}: {error:?}", self.round);
            println!("{name}: {text}");
            self.checks[index].1.push(text);
        }
    }

    /// Prints all checks in the format of the steps of `make test`.
    pub fn finish(self) -> ExitCode {
        let mut failed = false;
        println!("ok      the rounds came to their end");
        for (name, complaints) in self.checks {
            println!(
                "{} {name}",
                if complaints.is_empty() {
                    "ok     "
                } else {
                    "not ok "
                }
            );
            failed |= !complaints.is_empty();
            for line in complaints.iter().flat_map(|text| text.lines()) {
                println!("# {line}");
            }
        }
        ExitCode::from(u8::from(failed))
    }
}
