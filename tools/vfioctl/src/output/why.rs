// SPDX-License-Identifier: GPL-2.0

//! `vfioctl why`, and what `bind` and `restore` refuse.

use anyhow::Result;

use super::{
    print,
    print_json,
    printable, //
};
use crate::decide::why::{
    Obstacle,
    Verdict, //
};

/// Prints the answer.
pub fn why(verdict: &Verdict, json: bool) -> Result<()> {
    if json {
        return print_json(verdict);
    }
    print(&text(verdict))
}

fn text(verdict: &Verdict) -> String {
    let mut text = if verdict.ready {
        let nodes: Vec<String> = verdict
            .nodes
            .iter()
            .map(|n| n.display().to_string())
            .collect();
        format!(
            "{} can be handed out: {}\n",
            verdict.device,
            nodes.join(", ")
        )
    } else {
        format!("{} can't be handed out:\n", verdict.device)
    };
    text += &obstacles(&verdict.obstacles);
    for note in &verdict.notes {
        text += &format!("  note: {}\n", printable(note));
    }
    text
}

/// Formats obstacles, each with the commands that help. A command that helps several times is
/// printed once, after the last of its obstacles.
pub fn obstacles(obstacles: &[Obstacle]) -> String {
    let mut text = String::new();
    for (number, obstacle) in obstacles.iter().enumerate() {
        let about = match obstacle.reason {
            crate::decide::why::Reason::HostUse => format!("{}: ", obstacle.device),
            _ => String::new(),
        };
        text += &format!(
            "  {:<16}{about}{}\n",
            obstacle.reason.name(),
            printable(&obstacle.text)
        );
        let later = &obstacles[number + 1..];
        for help in &obstacle.help {
            if !later.iter().any(|other| other.help.contains(help)) {
                text += &format!("  {:<16}  -> {}\n", "", printable(help));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::why::Reason;

    #[test]
    fn a_command_for_two_obstacles_is_printed_once() {
        let obstacle = |reason, device: &str, text: &str| Obstacle {
            reason,
            device: device.into(),
            driver: None,
            pid: None,
            text: text.into(),
            help: vec!["vfioctl bind a".into()],
        };
        let found = [
            obstacle(Reason::Driver, "a", "it is bound to nvme"),
            obstacle(Reason::Sibling, "b", "b is bound to e\x1b[1m"),
        ];
        let expected = [
            "  driver          it is bound to nvme",
            "  sibling         b is bound to e?[1m",
            "                    -> vfioctl bind a",
            "",
        ];
        assert_eq!(obstacles(&found), expected.join("\n"));
    }
}
