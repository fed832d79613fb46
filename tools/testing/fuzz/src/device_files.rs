// SPDX-License-Identifier: GPL-2.0

//! Sequences of requests to device files, groups and iommufds, judged by the sequential model of
//! `tools/testing/linear`.

use crate::sequence::{
    Perform,
    Sequence, //
};
use anyhow::Result;
use differential::{
    choices::Choices,
    trace::Outcome, //
};
use linear::{
    defects::Rules,
    device_files::{
        files::{
            Machine,
            Worker, //
        },
        model::{
            Model,
            State, //
        },
        op::Op,
        plan::{
            self,
            Choose,
            THREADS, //
        },
    },
    op::{
        Answer,
        Call,
        describe, //
    },
};
use std::sync::Arc;

/// The choices of an input.
struct Input<'a>(Choices<'a>);

impl Choose for Input<'_> {
    fn below(&mut self, end: u32) -> u32 {
        self.0.u32(0..end)
    }
}

/// Returns the outcome of a request that has an answer, and should have another one or the same.
fn judge(answer: &Answer, expected: &Answer) -> Outcome {
    let result = answer.as_ref().map(|numbers| match numbers[..] {
        [number, ..] => number as i64,
        [] => 0,
    });
    let outcome = Outcome {
        result: result.map_err(|errno| *errno),
        bytes: Vec::new(),
        fields: Vec::new(),
        page: None,
    };
    match answer == expected {
        true => outcome,
        false => outcome.with("unexpected", describe(expected).replace(' ', "")),
    }
}

/// Runs an input with new iommufds and a new container, up to the first unexpected answer.
pub fn run(
    machine: &Machine,
    rules: Rules,
    input: &[u8],
    perform: &mut Perform<'_>,
) -> Result<Sequence> {
    let files = Arc::new(machine.open_files()?);
    let mut workers: Vec<_> = (0..THREADS).map(|_| Worker::new(files.clone())).collect();
    let (model, mut state) = (Model { rules }, State::default());
    let mut choices = plan::Sequence::new(Input(Choices::of_bytes(input)), rules);
    let mut sequence = Sequence::default();
    while !choices.choices().0.is_over() {
        let (thread, op): (u8, Op) = choices.request();
        let worker = &mut workers[usize::from(thread)];
        if !worker.can(&op) {
            continue;
        }
        let call = Call {
            process: 0,
            thread,
            op,
        };
        let expected = model.apply(&mut state, &call);
        let outcome = perform(&call, &mut || {
            let answer = worker.perform(&op)?;
            // Only another thread could have closed the file.
            Ok(judge(
                &answer.unwrap_or_else(|| expected.clone()),
                &expected,
            ))
        })?;
        if sequence.add(&call, &outcome) {
            break;
        }
    }
    Ok(sequence)
}
