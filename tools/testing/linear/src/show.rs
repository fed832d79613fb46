// SPDX-License-Identifier: GPL-2.0

//! Output of histories and plans.

use linear::{
    checker::Verdict,
    history::Entry,
    model::{
        Container,
        State, //
    },
    plan::Plan,
    shrink::{
        Core,
        explained,
        shrink, //
    },
};

fn lines<'a>(text: &mut String, entries: impl IntoIterator<Item = &'a Entry>) {
    for entry in entries {
        *text += &format!("#   {entry}\n");
    }
}

/// Formats a plan, line by line.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    let ops = |text: &mut String, name: &str, ops: &[linear::op::Op]| {
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
pub fn violation(model: &Container, history: &[Entry], verdict: &Verdict) -> String {
    let Core { needed, others } = shrink::<Container>(model, &State::default(), history);
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
pub fn hang(history: &[Entry]) -> String {
    let mut text = "# These requests have not returned:\n".to_owned();
    lines(
        &mut text,
        history.iter().filter(|entry| entry.returned.is_none()),
    );
    text += "# The whole history:\n";
    lines(&mut text, history);
    text
}
