// SPDX-License-Identifier: GPL-2.0

//! A picture of what took part in the demo, and of what the DMA did.

use crate::{
    reader::Outcome,
    report::size,
    session::Session, //
};

/// How far data came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing was sent.
    Nowhere,
    /// The IOMMU blocked it.
    Iommu,
    /// It arrived.
    Program,
}

/// A line of the picture: the device, the IOMMU, the program.
struct Row {
    texts: [String; 3],
    reach: Reach,
}

/// Returns the picture of a disk that was read, and of a command to an address that is not mapped.
pub fn of(session: &Session, outcome: &Outcome, unmapped: u64) -> String {
    let link = std::fs::read_link(format!("/sys/bus/pci/devices/{}/iommu", session.bdf()));
    let iommu = link.ok().and_then(|link| {
        let name = link.file_name()?.to_str()?;
        Some(format!("IOMMU {name}"))
    });
    let titles = [
        "NVMe controller".to_owned(),
        iommu.unwrap_or_else(|| "IOMMU".to_owned()),
        format!("nvme_read, process {}", std::process::id()),
    ];
    let mapped = outcome.block_size as u64 * outcome.depth as u64;
    let rows = [
        Row {
            texts: [
                format!("{}, driver vfio-pci", session.bdf()),
                format!("group {}", session.group_number()),
                format!("has opened /dev/vfio/{}", session.group_number()),
            ],
            reach: Reach::Nowhere,
        },
        Row {
            texts: [
                format!("reads the disk, {} commands", outcome.commands),
                format!("{} are mapped", size(mapped)),
                format!("{} arrived", size(outcome.bytes)),
            ],
            reach: Reach::Program,
        },
        Row {
            texts: [
                format!("writes to {unmapped:#x}"),
                "nothing is mapped: blocked".to_owned(),
                "no byte arrived".to_owned(),
            ],
            reach: Reach::Iommu,
        },
    ];
    draw(&titles, &rows)
}

/// Draws three boxes side by side, with arrows between them.
fn draw(titles: &[String; 3], rows: &[Row]) -> String {
    const GAP: &str = "     ";
    const ARROW: &str = " ──► ";
    let widths: [usize; 3] = std::array::from_fn(|box_| {
        let texts = rows.iter().map(|row| &row.texts[box_]);
        let longest = texts
            .chain([&titles[box_]])
            .map(|text| text.chars().count());
        longest.max().unwrap_or(0)
    });
    let line = |[first, second, third]: [String; 3], reach: Reach| {
        let gap = |arrow: bool| if arrow { ARROW } else { GAP };
        let (one, other) = (gap(reach != Reach::Nowhere), gap(reach == Reach::Program));
        format!("  {first}{one}{second}{other}{third}\n")
    };
    let rest = |box_: usize, text: &str| widths[box_] - text.chars().count();
    let top = std::array::from_fn(|box_| {
        let title = &titles[box_];
        format!("┌ {title} {}┐", "─".repeat(rest(box_, title)))
    });
    let bottom = std::array::from_fn(|box_| format!("└{}┘", "─".repeat(widths[box_] + 2)));
    let mut picture = line(top, Reach::Nowhere);
    for row in rows {
        let texts = std::array::from_fn(|box_| {
            let text = &row.texts[box_];
            format!("│ {text}{} │", " ".repeat(rest(box_, text)))
        });
        picture += &line(texts, row.reach);
    }
    picture + &line(bottom, Reach::Nowhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_reach_as_far_as_the_data() {
        let row = |texts: [&str; 3], reach| Row {
            texts: texts.map(str::to_owned),
            reach,
        };
        let picture = draw(
            &["device", "IOMMU", "é"].map(str::to_owned),
            &[
                row(["a", "b", "c"], Reach::Nowhere),
                row(["reads", "mapped", "here"], Reach::Program),
                row(["writes", "", "-"], Reach::Iommu),
            ],
        );
        let expected = "
  ┌ device ┐     ┌ IOMMU ─┐     ┌ é ──┐
  │ a      │     │ b      │     │ c    │
  │ reads  │ ──► │ mapped │ ──► │ here │
  │ writes │ ──► │        │     │ -    │
  └────────┘     └────────┘     └──────┘
";
        assert_eq!(picture, expected[1..]);
    }
}
