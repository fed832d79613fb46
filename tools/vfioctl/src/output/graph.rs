// SPDX-License-Identifier: GPL-2.0

//! `vfioctl graph`.

use std::path::Path;

use anyhow::{
    Context,
    Result, //
};
use svg::{
    Document,
    node::element::{
        Line,
        Rectangle,
        Text, //
    },
};

use super::{
    or_dash,
    print,
    printable, //
};
use crate::{
    decide::state::{
        State,
        is_viable, //
    },
    system::{
        Snapshot,
        devices::{
            Device,
            Group, //
        },
    },
};

/// An IOMMU with its groups.
struct Branch {
    name: String,
    groups: Vec<Leaf>,
}

/// A group with its devices.
struct Leaf {
    title: String,
    viable: bool,
    devices: Vec<(String, State)>,
}

impl Leaf {
    /// Returns the name of the group, and whether a program may own it.
    fn caption(&self) -> String {
        let viable = if self.viable { "" } else { ", not viable" };
        format!("{}{viable}", self.title)
    }
}

fn leaf(snapshot: &Snapshot, group: &Group) -> Leaf {
    let viable = is_viable(snapshot, group);
    let kind = group
        .kind
        .as_deref()
        .filter(|kind| *kind != "unknown")
        .map(|kind| format!(", {kind}"))
        .unwrap_or_default();
    let devices = snapshot.members(group).map(|device| {
        let state = State::of(snapshot, device);
        (describe(device, &state), state)
    });
    Leaf {
        title: printable(&format!("group {}{kind}", group.node_name())),
        viable,
        devices: devices.collect(),
    }
}

fn describe(device: &Device, state: &State) -> String {
    let driver = or_dash(device.driver.as_deref());
    printable(&format!(
        "{}  {}  [{driver}]  {}",
        device.name,
        device.kind(),
        state.describe()
    ))
}

/// Sorts the groups by IOMMU.
fn branches(snapshot: &Snapshot, only_vfio: bool) -> Vec<Branch> {
    let mut branches: Vec<Branch> = Vec::new();
    for group in snapshot.groups.values() {
        if only_vfio && !snapshot.members(group).any(Device::is_offered) {
            continue;
        }
        let name = snapshot
            .members(group)
            .find_map(|device| device.iommu.clone());
        let name = name.unwrap_or_else(|| "no IOMMU".to_owned());
        let leaf = leaf(snapshot, group);
        match branches.iter_mut().find(|branch| branch.name == name) {
            Some(branch) => branch.groups.push(leaf),
            None => branches.push(Branch {
                name,
                groups: vec![leaf],
            }),
        }
    }
    branches.sort_by(|a, b| a.name.cmp(&b.name));
    branches
}

/// Prints the tree, or writes it as a picture.
pub fn graph(snapshot: &Snapshot, svg: Option<&Path>, only_vfio: bool) -> Result<()> {
    let branches = branches(snapshot, only_vfio);
    match svg {
        None => print(&text(&branches)),
        Some(file) if file == Path::new("-") => print(&picture(&branches)),
        Some(file) => std::fs::write(file, picture(&branches))
            .with_context(|| format!("writing {}", file.display())),
    }
}

/// Returns the tree of the groups.
#[cfg(test)]
pub fn text_of(snapshot: &Snapshot) -> String {
    text(&branches(snapshot, false)) + &picture(&branches(snapshot, false))
}

fn text(branches: &[Branch]) -> String {
    let mut text = String::new();
    for branch in branches {
        text += &format!("{}\n", branch.name);
        for (number, group) in branch.groups.iter().enumerate() {
            let last = number + 1 == branch.groups.len();
            let (corner, bar) = if last {
                ("└─", "  ")
            } else {
                ("├─", "│ ")
            };
            text += &format!("{corner} {}\n", group.caption());
            for (number, (device, _)) in group.devices.iter().enumerate() {
                let corner = if number + 1 == group.devices.len() {
                    "└─"
                } else {
                    "├─"
                };
                text += &format!("{bar} {corner} {device}\n");
            }
        }
    }
    if text.is_empty() {
        text += "There are no groups to show.\n";
    }
    text
}

/// The height of a line with a device.
const ROW: usize = 30;
/// The space between boxes.
const GAP: usize = 12;
/// The left edges of the columns.
const COLUMNS: [usize; 3] = [20, 270, 570];
/// The widths of the columns.
const WIDTHS: [usize; 3] = [200, 250, 780];

/// The width of a letter; most are narrower.
const LETTER: usize = 8;

/// Cuts a text that is too long for its box.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    kept + "\u{2026}"
}

/// Returns the colour of a state.
fn colour(state: &State) -> &'static str {
    match state {
        State::Ready => "#d5f0d5",
        State::Open { .. } => "#cfe3fa",
        State::Blocked { .. } => "#f8d7d7",
        State::Host { .. } => "#fdf0c4",
        State::Bridge | State::NoDriver => "#eeeeee",
    }
}

fn picture(branches: &[Branch]) -> String {
    let background = Rectangle::new()
        .set("width", "100%")
        .set("height", "100%")
        .set("fill", "#ffffff");
    let mut document = Document::new()
        .set("font-family", "sans-serif")
        .set("font-size", 13)
        .add(background);
    let mut y = GAP;
    for branch in branches {
        let first = y;
        for group in &branch.groups {
            let height = group.devices.len() * ROW;
            let stroke = if group.viable { "#3a7d3a" } else { "#b03030" };
            document = box_with(
                document,
                1,
                y,
                height.max(ROW),
                "#ffffff",
                stroke,
                &group.caption(),
            );
            for (number, (device, state)) in group.devices.iter().enumerate() {
                let top = y + number * ROW;
                document = document.add(line(
                    COLUMNS[1] + WIDTHS[1],
                    top + ROW / 2,
                    COLUMNS[2],
                    top + ROW / 2,
                ));
                document = box_with(document, 2, top, ROW, colour(state), "#888888", device);
            }
            y += height.max(ROW) + GAP;
        }
        let height = y - GAP - first;
        for number in 0..branch.groups.len() {
            let middle = middle_of(&branch.groups, number, first);
            document = document.add(line(COLUMNS[0] + WIDTHS[0], middle, COLUMNS[1], middle));
        }
        document = box_with(
            document,
            0,
            first,
            height,
            "#e8e4f4",
            "#5a4a8a",
            &branch.name,
        );
    }
    let width = COLUMNS[2] + WIDTHS[2] + GAP;
    document
        .set("viewBox", (0, 0, width, y))
        .set("width", width)
        .set("height", y)
        .to_string()
        + "\n"
}

fn middle_of(groups: &[Leaf], number: usize, first: usize) -> usize {
    let height = |group: &Leaf| group.devices.len().max(1) * ROW;
    let before: usize = groups[..number]
        .iter()
        .map(|group| height(group) + GAP)
        .sum();
    first + before + height(&groups[number]) / 2
}

fn line(x1: usize, y1: usize, x2: usize, y2: usize) -> Line {
    Line::new()
        .set("x1", x1)
        .set("y1", y1)
        .set("x2", x2)
        .set("y2", y2)
        .set("stroke", "#888888")
}

fn box_with(
    document: Document,
    column: usize,
    y: usize,
    height: usize,
    fill: &str,
    stroke: &str,
    text: &str,
) -> Document {
    let (x, width) = (COLUMNS[column], WIDTHS[column]);
    let rectangle = Rectangle::new()
        .set("x", x)
        .set("y", y + 2)
        .set("width", width)
        .set("height", height - 4)
        .set("rx", 4)
        .set("fill", fill)
        .set("stroke", stroke);
    let label = Text::new(shorten(text, (width - 16) / LETTER))
        .set("x", x + 8)
        .set("y", y + height / 2 + 5);
    document.add(rectangle).add(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch() -> Branch {
        Branch {
            name: "dmar0".into(),
            groups: vec![
                Leaf {
                    title: "group 1".into(),
                    viable: true,
                    devices: vec![("a <b> & \"c\"".into(), State::Ready)],
                },
                Leaf {
                    title: "group 2".into(),
                    viable: false,
                    devices: vec![("d".into(), State::NoDriver), ("e".into(), State::Bridge)],
                },
            ],
        }
    }

    #[test]
    fn a_tree() {
        let expected =
            "dmar0\n├─ group 1\n│  └─ a <b> & \"c\"\n└─ group 2, not viable\n   ├─ d\n   └─ e\n";
        assert_eq!(text(&[branch()]), expected);
        assert_eq!(text(&[]), "There are no groups to show.\n");
    }

    #[test]
    fn a_long_text_stays_in_its_box() {
        assert_eq!(shorten("dmar0", 5), "dmar0");
        assert_eq!(shorten("d\u{e9}mar10", 5), "d\u{e9}ma\u{2026}");
        let mut branch = branch();
        branch.groups[0].devices[0].0 = "x".repeat(1000);
        assert!(!picture(&[branch]).contains(&"x".repeat(100)));
    }

    #[test]
    fn a_picture_is_well_formed() {
        let picture = picture(&[branch()]);
        assert!(picture.contains("a &lt;b&gt; &amp; "), "{picture}");
        assert_eq!(picture.matches("<rect").count(), 7);
        assert!(picture.contains("group 2, not viable"), "{picture}");
        // Reads it again, with the same library.
        let tags = svg::read(&picture).unwrap();
        assert!(
            !tags
                .into_iter()
                .any(|event| matches!(event, svg::parser::Event::Error(_)))
        );
    }
}
