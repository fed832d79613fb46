// SPDX-License-Identifier: GPL-2.0

//! Output of histories and plans.

use crate::target::Request;
use linear::{
    checker::{
        Model,
        Verdict, //
    },
    history::Entry,
    op::{
        Answer,
        Call, //
    },
    plan::Plan,
    shrink::{
        Core,
        explained,
        shrink, //
    },
};

fn lines<'a, O: Request>(
    text: &mut String,
    entries: impl IntoIterator<Item = &'a Entry<Call<O>, Answer>>,
) {
    for entry in entries {
        *text += &format!("#   {entry}\n");
    }
}

/// Formats a plan, line by line.
pub fn plan<O: Request>(plan: &Plan<O>) -> String {
    let mut text = String::new();
    let ops = |text: &mut String, name: &str, ops: &[O]| {
        *text += &format!("{name}\n");
        for op in ops {
            *text += &format!("  {op}\n");
        }
    };
    ops(&mut text, "first", &plan.prologue);
    for (nth, thread) in plan.threads.iter().enumerate() {
        ops(
            &mut text,
            &format!("thread {}.{nth}", thread.process),
            &thread.ops,
        );
    }
    ops(&mut text, "last", &plan.epilogue);
    text
}

/// Formats a history without an explanation.
pub fn violation<O, M>(model: &M, history: &[Entry<Call<O>, Answer>], verdict: &Verdict) -> String
where
    O: Request,
    M: Model<Call = Call<O>, Answer = Answer, State: Default>,
{
    let Core { needed, others } = shrink(model, &M::State::default(), history);
    let mut text = format!(
        "# No order of these {} requests explains their answers (times, process.thread):\n",
        needed.len()
    );
    lines(&mut text, &needed);
    if !others.is_empty() {
        text += "# whatever these did:\n";
        lines(&mut text, &others);
    }
    text += "# The longest order that explains a part of the whole history:\n";
    lines(&mut text, explained(history, verdict));
    text
}

/// Formats a history that hangs.
pub fn hang<O: Request>(history: &[Entry<Call<O>, Answer>]) -> String {
    let mut text = "# These requests have not returned:\n".to_owned();
    lines(
        &mut text,
        history.iter().filter(|entry| entry.returned.is_none()),
    );
    text += "# The whole history:\n";
    lines(&mut text, history);
    text
}
