//! Lists whose objects name what the provider would run or keep.

use super::{ScanError, decode, members};
use crate::Form;
use crate::json::Cursor;

/// Calls `each` with every member of every object in a list; what is no list or no object passes by. `end` hears of each object's end.
fn objects_of_list<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>, &'a [u8]) -> Result<(), ScanError>,
    mut end: impl FnMut() -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    if cursor.peek() != Some(b'[') {
        return Ok(cursor.value(1)?);
    }
    cursor.at += 1;
    if cursor.peek() == Some(b']') {
        cursor.at += 1;
        return Ok(());
    }
    loop {
        if cursor.peek() == Some(b'{') {
            cursor.at += 1;
            members(cursor, &mut each)?;
            end()?;
        } else {
            cursor.value(2)?;
        }
        if cursor.peek() != Some(b',') {
            return Ok(cursor.take(b']')?);
        }
        cursor.at += 1;
    }
}

/// Tools that the caller runs itself. An allow-list: what providers invent tomorrow is not metered by us tomorrow.
fn is_callers_tool(form: Form, kind: &str) -> bool {
    const MESSAGE: [&str; 7] = ["bash_", "text_editor_", "memory_", "computer_", "browser_toolset_", "computer_toolset_", "tool_search_tool_"];
    match form {
        Form::Message | Form::CountTokens => kind == "custom" || MESSAGE.iter().any(|own| kind.starts_with(own)),
        Form::Response => matches!(kind, "function" | "custom" | "local_shell" | "apply_patch" | "computer" | "computer_use_preview"),
        _ => matches!(kind, "function" | "custom"),
    }
}

pub(super) fn tools(form: Form, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
    objects_of_list(
        cursor,
        |cursor, key| {
            if key != b"type" || cursor.peek() != Some(b'"') {
                return Ok(cursor.value(3)?);
            }
            let kind = cursor.string()?;
            let kind = decode(cursor.text, kind, "tools[].type")?;
            if is_callers_tool(form, &kind) { Ok(()) } else { Err(ScanError::HostedTool("tools[].type")) }
        },
        || Ok(()),
    )
}

/// Items of a `responses` conversation. A reference to a stored item has `type: item_reference`, or no type and no role at all.
pub(super) fn input_items(cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
    let names_itself = std::cell::Cell::new(false);
    objects_of_list(
        cursor,
        |cursor, key| {
            match key {
                b"role" => names_itself.set(true),
                b"type" if cursor.peek() == Some(b'"') => {
                    let kind = cursor.string()?;
                    if decode(cursor.text, kind, "input[].type")? == "item_reference" {
                        return Err(ScanError::ProviderState("input[].type"));
                    }
                    names_itself.set(true);
                    return Ok(());
                }
                _ => {}
            }
            Ok(cursor.value(3)?)
        },
        || if names_itself.replace(false) { Ok(()) } else { Err(ScanError::ProviderState("input[].id")) },
    )
}
