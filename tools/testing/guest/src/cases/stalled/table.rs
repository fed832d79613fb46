// SPDX-License-Identifier: GPL-2.0

//! The expected result of each pair of requests.
//!
//! A row is a place where a request stops, and the final answer of that request. A column is a
//! request that another thread sends meanwhile. An entry is the answer to that request: a number
//! of pages or an errno. A leading `~` means that the answer comes only after the stopped request
//! has ended. The answer of the stopped request follows a slash if it differs from the usual one.
//! `x` marks a pair that makes no sense.

use super::{
    meanwhile::Meanwhile,
    place::Place, //
};

/// When the second request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While the first one is stopped.
    Meanwhile,
    /// After the first one has ended.
    After,
}

/// The expected result of two requests.
#[derive(Clone, Debug)]
pub struct Expected {
    pub when: When,
    /// The answer of the second request.
    pub answer: String,
    /// The answer of the stopped request.
    pub stopped: String,
}

/// Two requests.
#[derive(Clone, Debug)]
pub struct Pair {
    pub place: Place,
    pub place_name: &'static str,
    pub meanwhile: Meanwhile,
    pub meanwhile_name: &'static str,
    pub expected: Expected,
}

/// A request that fails at once at the place where it could stop.
#[derive(Clone, Debug)]
pub struct NotStopped {
    pub place: Place,
    pub place_name: &'static str,
    pub answer: String,
}

/// The names of the places in the tables.
const PLACES: [(&str, Place); 17] = [
    ("map_argument", Place::MapArgument),
    ("map_pages", Place::MapPages),
    ("unmap_argument", Place::UnmapArgument),
    ("unmap_answer", Place::UnmapAnswer),
    ("unmap_bitmap_argument", Place::UnmapBitmapArgument),
    ("unmap_bitmap", Place::UnmapBitmap),
    ("dirty_argument", Place::DirtyArgument),
    ("dirty_range", Place::DirtyRange),
    ("dirty_bitmap", Place::DirtyBitmap),
    ("info_argument", Place::InfoArgument),
    ("info_answer", Place::InfoAnswer),
    ("join_argument", Place::JoinArgument),
    ("open_argument", Place::OpenArgument),
    ("driver_pins", Place::DriverPins),
    ("driver_reads", Place::DriverReads),
    ("driver_writes", Place::DriverWrites),
    ("join_pages", Place::JoinPages),
];

/// Requests that have not started their work, or have only their answer left to write. No request
/// waits for them.
const UNHINDERED: &str = "
                          map_there  map_before map_behind map_aside
map_argument          0   0/EEXIST   0/EEXIST   0/EEXIST   0
unmap_argument        4   EEXIST     0/EINVAL   0/EINVAL   0
unmap_answer          4   0          0          0          0
unmap_bitmap_argument 4   EEXIST     0/EINVAL   0/EINVAL   0
dirty_argument        0   EEXIST     0/EINVAL   0/EINVAL   0
dirty_range           0   EEXIST     0/EINVAL   0/EINVAL   0
info_argument         0   EEXIST     0          0          0
info_answer           0   EEXIST     0          0          0
join_argument         0   EEXIST     0          0          0
open_argument         0   EEXIST     0          0          0

                          unmap_there unmap_aside unmap_all
map_argument          0   0           4           8
unmap_argument        4   4/0         4           12/0
unmap_answer          4   0           4           8
unmap_bitmap_argument 4   4/0         4           12/0
dirty_argument        0   4           4           12
dirty_range           0   4           4           12
info_argument         0   4           4           12
info_answer           0   4           4           12
join_argument         0   4           4           12
open_argument         0   4           4           12

                          invalidate_there invalidate_aside update_there update_aside
map_argument          0   0                4                ENOENT       0
unmap_argument        4   4                4                EINVAL       0
unmap_answer          4   0                4                ENOENT       0
unmap_bitmap_argument 4   4                4                EINVAL       0
dirty_argument        0   4                4                EINVAL       0
dirty_range           0   4                4                EINVAL       0
info_argument         0   4                4                EINVAL       0
info_answer           0   4                4                EINVAL       0
join_argument         0   4/EBUSY          4/EBUSY          EINVAL       0
open_argument         0   4                4                EINVAL       0

                          start stop     bitmap_there bitmap_aside info join     leave unbind open
map_argument          0   0     0        0            0            0    0        0     0      0
unmap_argument        4   0     0        0            0            0    0        0     0      0
unmap_answer          4   0     0        0            0            0    0        0     0      0
unmap_bitmap_argument 4   0     0/EINVAL 0            0            0    0        0     0      0
dirty_argument        0   0     0/EINVAL 0            0            0    0        0     0      0
dirty_range           0   0     0/EINVAL 0            0            0    0        0     0      0
info_argument         0   0     0        0            0            0    0        0     0      0
info_answer           0   0     0        0            0            0    0        0     0      0
join_argument         0   0     0        0            0            0    0/EINVAL x     x      0
open_argument         0   0     0        0            0            0    0        0     0      0
";

/// The Rust module: requests wait for earlier requests on the same addresses. Adding and removing
/// groups, UNMAP_DMA of everything and dirty page tracking use all addresses. A driver that pins
/// or writes uses a whole mapping. Drivers that read share addresses. GET_INFO waits for no
/// request.
const OURS: &str = "
                  map_there  map_before map_behind map_aside unmap_there unmap_aside unmap_all
map_pages     0   ~EEXIST    ~EEXIST    ~EEXIST    0         ~8          4           ~16
unmap_bitmap  4   ~0         ~0         ~0         0         ~0          4           ~8
dirty_bitmap  0   ~EEXIST    ~0         ~0         0         ~4          4           ~12
driver_pins   4   ~EEXIST    ~EEXIST    ~EEXIST    0         ~8          4           ~12
driver_reads  0   ~EEXIST    ~EEXIST    EEXIST     0         ~8          4           ~12
driver_writes 0   ~EEXIST    ~EEXIST    ~EEXIST    0         ~8          4           ~12
join_pages    0   ~EEXIST    ~EEXIST    ~EEXIST    ~0        ~8          ~4          ~12

                  invalidate_there invalidate_aside update_there update_aside
map_pages     0   ~8               4                ~EINVAL      0
unmap_bitmap  4   ~0               4                ~ENOENT      0
dirty_bitmap  0   ~4               4                ~EINVAL      0
driver_pins   4   ~EBUSY           EBUSY            ~EINVAL      x
driver_reads  0   ~EBUSY           EBUSY            ~EINVAL      x
driver_writes 0   ~EBUSY           EBUSY            ~EINVAL      x
join_pages    0   ~EBUSY           ~EBUSY           ~EINVAL      x

                  start stop bitmap_there bitmap_aside info join leave unbind open
map_pages     0   ~0    ~0   ~0           0            0    ~0   ~0    ~0     0
unmap_bitmap  4   ~0    ~0   ~0           0            0    ~0   ~0    ~0     0
dirty_bitmap  0   ~0    ~0   ~0           0            0    ~0   ~0    ~0     0
driver_pins   4   ~0    ~0   ~0           0            0    ~0   x     x      0
driver_reads  0   ~0    ~0   ~0           0            0    ~0   x     x      0
driver_writes 0   ~0    ~0   ~0           0            0    ~0   x     x      0
join_pages    0   ~0    ~0   ~0           ~0           0    x    x     x      0

                  pin_there pin_aside unpin_there read_there read_aside write_aside
map_pages     0   ~1        1         0           ~0         0          0
unmap_bitmap  4   ~EINVAL   1         0           ~EINVAL    0          0
dirty_bitmap  0   ~1        1         0           ~0         0          0
driver_pins   4   ~1        ~1        ~0          ~0         0          0
driver_reads  0   ~1        1         0           0          0          0
driver_writes 0   ~1        1         0           ~0         0          0
join_pages    0   ~1        ~1        0           ~0         ~0         ~0
";

/// The C module: all requests that use the container wait for a request that has stopped under the
/// container's mutex. The module does not fault in memory where that could stop.
const THEIRS: &str = "
map_pages   EFAULT
driver_pins EFAULT
join_pages  EFAULT

                  map_there  map_before map_behind map_aside unmap_there unmap_aside unmap_all
unmap_bitmap  4   ~0         ~0         ~0         ~0        ~0          ~4          ~8
dirty_bitmap  0   ~EEXIST    ~0         ~0         ~0        ~4          ~4          ~12
driver_reads  0   ~EEXIST    ~EEXIST    ~EEXIST    ~0        ~8          ~4          ~12
driver_writes 0   ~EEXIST    ~EEXIST    ~EEXIST    ~0        ~8          ~4          ~12

                  invalidate_there invalidate_aside update_there update_aside
unmap_bitmap  4   ~0               ~4               ~ENOENT      ~0
dirty_bitmap  0   ~4               ~4               ~EINVAL      ~0
driver_reads  0   ~EBUSY           ~EBUSY           ~EINVAL      x
driver_writes 0   ~EBUSY           ~EBUSY           ~EINVAL      x

                  start stop bitmap_there bitmap_aside info join leave unbind open
unmap_bitmap  4   ~0    ~0   ~0           ~0           ~0   ~0   ~0    ~0     0
dirty_bitmap  0   ~0    ~0   ~0           ~0           ~0   ~0   ~0    ~0     0
driver_reads  0   ~0    ~0   ~0           ~0           ~0   ~0   x     x      0
driver_writes 0   ~0    ~0   ~0           ~0           ~0   ~0   x     x      0

                  pin_there pin_aside unpin_there read_there read_aside write_aside
unmap_bitmap  4   ~EINVAL   ~1        0           ~EINVAL    ~0         ~0
dirty_bitmap  0   ~1        ~1        0           ~0         ~0         ~0
driver_reads  0   ~1        ~1        0           ~0         ~0         ~0
driver_writes 0   ~1        ~1        0           ~0         ~0         ~0
";

/// Looks up a name.
fn named<T: Copy>(names: &[(&'static str, T)], name: &str) -> (&'static str, T) {
    let found = names.iter().find(|(known, _)| *known == name);
    *found.unwrap_or_else(|| panic!("the table has an unknown name: {name}"))
}

/// Returns the place with a name in the tables.
pub fn place_named(name: &str) -> Place {
    named(&PLACES, name).1
}

/// Parses an entry. `usual` is the usual answer of the stopped request.
fn expected(entry: &str, usual: &str) -> Expected {
    let (when, rest) = match entry.strip_prefix('~') {
        Some(rest) => (When::After, rest),
        None => (When::Meanwhile, entry),
    };
    let (answer, stopped) = rest.split_once('/').unwrap_or((rest, usual));
    Expected {
        when,
        answer: answer.to_owned(),
        stopped: stopped.to_owned(),
    }
}

/// The words of a line.
type Words = Vec<&'static str>;

/// Returns the rows of a table, each with the columns of its section. The first line of a section
/// has the columns and is indented.
fn rows(table: &'static str) -> impl Iterator<Item = (Words, Words)> {
    table
        .trim_start_matches('\n')
        .split("\n\n")
        .flat_map(|part| {
            let (heads, rows): (Vec<_>, Vec<_>) =
                part.lines().partition(|line| line.starts_with(' '));
            let columns: Words = heads.into_iter().flat_map(str::split_whitespace).collect();
            let rows = rows.into_iter().map(|row| row.split_whitespace().collect());
            rows.map(move |row| (columns.clone(), row))
        })
}

fn tables(ours: bool) -> [&'static str; 2] {
    [UNHINDERED, if ours { OURS } else { THEIRS }]
}

/// Returns the pairs to be tested.
pub fn pairs(ours: bool) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (columns, row) in tables(ours).into_iter().flat_map(rows) {
        let [place, usual, entries @ ..] = &row[..] else {
            panic!("the table has a bad row: {row:?}");
        };
        if entries.is_empty() {
            continue;
        }
        assert_eq!(columns.len(), entries.len(), "the table's row of {place}");
        for (column, entry) in columns
            .iter()
            .zip(entries)
            .filter(|(_, entry)| **entry != "x")
        {
            let (place_name, place) = named(&PLACES, place);
            let (meanwhile_name, meanwhile) = named(&Meanwhile::ALL, column);
            pairs.push(Pair {
                place,
                place_name,
                meanwhile,
                meanwhile_name,
                expected: expected(entry, usual),
            });
        }
    }
    pairs
}

/// Returns the requests that do not stop.
pub fn not_stopped(ours: bool) -> Vec<NotStopped> {
    let rows = tables(ours).into_iter().flat_map(rows);
    rows.filter_map(|(_, row)| {
        let [place, answer] = row[..] else {
            return None;
        };
        let (place_name, place) = named(&PLACES, place);
        Some(NotStopped {
            place,
            place_name,
            answer: answer.to_owned(),
        })
    })
    .collect()
}
