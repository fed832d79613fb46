// SPDX-License-Identifier: GPL-2.0

//! Attributes of the `kernel` crate, for programs.

#![deny(unsafe_code)]

use proc_macro::{
    Delimiter,
    Group,
    TokenStream,
    TokenTree, //
};

/// Takes the `#[pin]` off the fields of a structure: nothing moves here while it is used.
#[proc_macro_attribute]
pub fn pin_data(_: TokenStream, item: TokenStream) -> TokenStream {
    item.into_iter().map(without_pins).collect()
}

fn without_pins(tree: TokenTree) -> TokenTree {
    let TokenTree::Group(group) = tree else {
        return tree;
    };
    if group.delimiter() != Delimiter::Brace {
        return group.into();
    }
    let mut fields = Vec::new();
    for token in group.stream() {
        if token.to_string() == "[pin]" {
            fields.pop();
        } else {
            fields.push(token);
        }
    }
    Group::new(Delimiter::Brace, fields.into_iter().collect()).into()
}

/// Makes a suite of KUnit a module of tests.
#[proc_macro_attribute]
pub fn kunit_tests(_: TokenStream, suite: TokenStream) -> TokenStream {
    let mut module: TokenStream = "#[cfg(test)]".parse().unwrap_or_default();
    module.extend(suite);
    module
}
