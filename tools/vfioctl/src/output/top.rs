// SPDX-License-Identifier: GPL-2.0

//! `vfioctl top`.

use std::{
    io::IsTerminal,
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::{
    Context,
    Result, //
};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{
        self,
        Event,
        KeyCode,
        KeyModifiers, //
    },
    layout::{
        Constraint,
        Layout, //
    },
    style::{
        Modifier,
        Style, //
    },
    widgets::{
        Cell,
        Paragraph,
        Row,
        Table, //
    },
};
use serde::Serialize;

use super::{
    printable,
    table,
    try_print, //
};
use crate::{
    cli::TopOptions,
    decide::size,
    status::is_broken_pipe,
    system::{
        System,
        containers::{
            self,
            Container,
            Containers, //
        },
    },
};

/// A line of the view.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
struct Line {
    #[serde(flatten)]
    container: Container,
    /// Map requests a second since the last look.
    maps_per_second: f64,
    /// Unmap requests a second since the last look.
    unmaps_per_second: f64,
    /// The change of the locked memory a second since the last look, in bytes.
    locked_per_second: f64,
}

/// One look.
#[derive(Clone, Debug, Default, Serialize)]
struct Look {
    from_debugfs: bool,
    containers: Vec<Line>,
}

/// Computes rates from two looks.
fn compare(before: Option<&Containers>, now: &Containers, seconds: f64) -> Look {
    let mut unmatched: Vec<&Container> = before.into_iter().flat_map(|b| &b.containers).collect();
    let lines = now.containers.iter().map(|container| {
        let same = |old: &&Container| {
            old.pid == container.pid
                && old.command == container.command
                && !is_younger(container, old)
        };
        let old = unmatched
            .iter()
            .position(same)
            .map(|at| unmatched.remove(at));
        let mut line = Line {
            container: container.clone(),
            ..Line::default()
        };
        if let Some(old) = old.filter(|_| seconds > 0.0) {
            line.locked_per_second = (container.locked as f64 - old.locked as f64) / seconds;
            if let (Some(now), Some(then)) = (&container.detail, &old.detail) {
                line.maps_per_second = now.maps.saturating_sub(then.maps) as f64 / seconds;
                line.unmaps_per_second = now.unmaps.saturating_sub(then.unmaps) as f64 / seconds;
            }
        }
        line
    });
    Look {
        from_debugfs: now.from_debugfs,
        containers: lines.collect(),
    }
}

/// Returns whether a container has had fewer requests, so it cannot be the same one.
fn is_younger(container: &Container, old: &Container) -> bool {
    match (&container.detail, &old.detail) {
        (Some(now), Some(then)) => now.maps < then.maps || now.unmaps < then.unmaps,
        _ => false,
    }
}

impl Look {
    fn head(&self) -> &'static [&'static str] {
        if self.from_debugfs {
            &[
                "PID", "COMMAND", "GROUPS", "MAPS", "MAPPED", "CHARGED", "PINNED", "LOCKED",
                "MAP/S", "UNMAP/S",
            ]
        } else {
            &["PID", "COMMAND", "GROUPS", "LOCKED", "LOCKED/S"]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.containers.iter().map(Line::cells).collect()
    }

    fn remark(&self) -> &'static str {
        match (self.from_debugfs, self.containers.is_empty()) {
            (_, true) => "No container that this user can see.",
            (true, _) => "",
            (false, _) => {
                "The modules in C tell no more. VFIO in Rust has mappings and rates, in debugfs."
            }
        }
    }
}

impl Line {
    fn cells(&self) -> Vec<String> {
        let container = &self.container;
        let groups: Vec<String> = container.groups.iter().map(u32::to_string).collect();
        let mut cells = vec![
            container.pid.to_string(),
            container.command.clone(),
            if groups.is_empty() {
                "-".to_owned()
            } else {
                groups.join(",")
            },
        ];
        match &container.detail {
            Some(detail) => cells.extend([
                detail.mappings.to_string(),
                size(detail.mapped),
                size(detail.charged),
                size(detail.pinned),
                size(container.locked),
                format!("{:.1}", self.maps_per_second),
                format!("{:.1}", self.unmaps_per_second),
            ]),
            None => {
                let sign = if self.locked_per_second < 0.0 {
                    "-"
                } else {
                    ""
                };
                // CAST: Saturates.
                let change = size(self.locked_per_second.abs() as u64);
                cells.extend([size(container.locked), format!("{sign}{change}")]);
            }
        }
        cells
    }
}

/// Looks at the containers again and again.
struct Watch<'a> {
    system: &'a System,
    last: Option<(Instant, Containers)>,
}

impl Watch<'_> {
    fn look(&mut self) -> Look {
        let now = containers::read(self.system);
        let time = Instant::now();
        let before = self.last.as_ref();
        let seconds = before.map_or(0.0, |(then, _)| (time - *then).as_secs_f64());
        let look = compare(before.map(|(_, containers)| containers), &now, seconds);
        self.last = Some((time, now));
        look
    }
}

/// Shows the containers until the user or `--count` ends it.
pub fn top(system: &System, options: &TopOptions) -> Result<()> {
    let mut watch = Watch { system, last: None };
    if options.batch || options.json || !std::io::stdout().is_terminal() {
        return match in_batches(&mut watch, options) {
            // The reader has gone, such as `head`.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            other => other,
        };
    }
    let mut terminal = ratatui::try_init().context("using the terminal")?;
    let result = on_terminal(&mut terminal, &mut watch, options.delay, options.count);
    ratatui::try_restore().context("restoring the terminal")?;
    result
}

fn in_batches(watch: &mut Watch<'_>, options: &TopOptions) -> Result<()> {
    let mut number = 0;
    loop {
        let look = watch.look();
        if options.json {
            try_print(&(serde_json::to_string(&look)? + "\n"))?;
        } else {
            let text = table(look.head(), look.rows());
            let remark = look.remark();
            try_print(&format!(
                "{text}{remark}{}\n",
                if remark.is_empty() { "" } else { "\n" }
            ))?;
        }
        number += 1;
        if options.count.is_some_and(|count| number >= count) {
            return Ok(());
        }
        thread::sleep(options.delay);
    }
}

fn on_terminal(
    terminal: &mut DefaultTerminal,
    watch: &mut Watch<'_>,
    delay: Duration,
    count: Option<u64>,
) -> Result<()> {
    let mut number = 0;
    loop {
        let look = watch.look();
        terminal.draw(|frame| draw(frame, &look))?;
        number += 1;
        if count.is_some_and(|count| number >= count) {
            return Ok(());
        }
        let next = Instant::now() + delay;
        // Keys count also if drawing takes longer than the delay.
        while event::poll(next.saturating_duration_since(Instant::now()))? {
            match event::read()? {
                Event::Key(key) => {
                    let interrupt =
                        key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
                    if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(());
                    }
                    break;
                }
                Event::Resize(..) => {
                    terminal.draw(|frame| draw(frame, &look))?;
                }
                _ => {}
            }
        }
    }
}

fn draw(frame: &mut Frame<'_>, look: &Look) {
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let count = look.containers.len();
    let noun = if count == 1 {
        "container"
    } else {
        "containers"
    };
    frame.render_widget(Paragraph::new(format!("vfioctl top: {count} {noun}")), top);
    let rows = look.rows();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let head = look.head().get(column).map_or(0, |head| head.len());
        // CAST: A terminal is narrower.
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(head)
            .min(40) as u16
    };
    let widths: Vec<Constraint> = (0..look.head().len())
        .map(|column| Constraint::Length(width(column)))
        .collect();
    let head = Row::new(look.head().iter().copied().map(Cell::from));
    let head = head.style(Style::default().add_modifier(Modifier::REVERSED));
    let rows = rows
        .iter()
        .map(|row| Row::new(row.iter().map(|cell| printable(cell))));
    frame.render_widget(
        Table::new(rows, widths).header(head).column_spacing(2),
        middle,
    );
    let keys = format!("q: quit, any other key: look again. {}", look.remark());
    frame.render_widget(Paragraph::new(keys), bottom);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::containers::Detail;
    use ratatui::{
        Terminal,
        backend::TestBackend, //
    };

    fn container(pid: u32, maps: u64) -> Container {
        Container {
            pid,
            command: "dpdk".into(),
            detail: Some(Detail {
                maps,
                mappings: 3,
                mapped: 8 << 20,
                ..Detail::default()
            }),
            ..Container::default()
        }
    }

    fn containers(containers: Vec<Container>) -> Containers {
        Containers {
            from_debugfs: true,
            containers,
        }
    }

    #[test]
    fn rates() {
        let before = containers(vec![container(1, 10), container(2, 5)]);
        let now = containers(vec![container(2, 9), container(1, 2), container(3, 7)]);
        let look = compare(Some(&before), &now, 2.0);
        let rates: Vec<f64> = look
            .containers
            .iter()
            .map(|line| line.maps_per_second)
            .collect();
        // The second one is a new container of a process that had another one.
        assert_eq!(rates, [2.0, 0.0, 0.0]);
        let first = compare(None, &now, 0.0);
        assert!(
            first
                .containers
                .iter()
                .all(|line| line.maps_per_second == 0.0)
        );
    }

    #[test]
    fn a_terminal_of_any_size() {
        let look = compare(None, &containers(vec![container(1, 10)]), 0.0);
        for (width, height) in [(100, 20), (20, 3), (1, 1), (300, 2)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &look)).unwrap();
            let text: String = terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .map(|c| c.symbol())
                .collect();
            assert_eq!(text.contains("8 MiB"), width >= 100 && height > 2);
        }
    }
}
