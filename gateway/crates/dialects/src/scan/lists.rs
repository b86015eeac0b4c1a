//! Lists whose objects can request tools or stored state of the provider.

use super::error::ScanError;
use super::values::{decode, members};
use crate::json::Cursor;
use crate::request_format::RequestFormat;

/// Calls `each` with every member of every object in a list and `end` after each object. Other values are skipped.
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

/// Tools that the caller runs itself. An allow-list, because we would not meter what a provider adds tomorrow.
fn is_callers_tool(format: RequestFormat, tool_type: &str) -> bool {
    const MESSAGE: [&str; 7] = ["bash_", "text_editor_", "memory_", "computer_", "browser_toolset_", "computer_toolset_", "tool_search_tool_"];
    match format {
        RequestFormat::Message | RequestFormat::CountTokens => tool_type == "custom" || MESSAGE.iter().any(|own| tool_type.starts_with(own)),
        RequestFormat::Response => matches!(tool_type, "function" | "custom" | "local_shell" | "apply_patch" | "computer" | "computer_use_preview"),
        _ => matches!(tool_type, "function" | "custom"),
    }
}

pub(super) fn tools(format: RequestFormat, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
    objects_of_list(
        cursor,
        |cursor, key| {
            if key != b"type" || cursor.peek() != Some(b'"') {
                return Ok(cursor.value(3)?);
            }
            let quoted = cursor.string()?;
            let tool_type = decode(cursor.text, quoted, "tools[].type")?;
            if is_callers_tool(format, &tool_type) { Ok(()) } else { Err(ScanError::HostedTool("tools[].type")) }
        },
        || Ok(()),
    )
}

/// Items of a `responses` conversation. A reference to a stored item has `type: item_reference`, or no type and no role at all.
pub(super) fn input_items(cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
    let has_type_or_role = std::cell::Cell::new(false);
    objects_of_list(
        cursor,
        |cursor, key| {
            match key {
                b"role" => has_type_or_role.set(true),
                b"type" if cursor.peek() == Some(b'"') => {
                    let quoted = cursor.string()?;
                    if decode(cursor.text, quoted, "input[].type")? == "item_reference" {
                        return Err(ScanError::ProviderState("input[].type"));
                    }
                    has_type_or_role.set(true);
                    return Ok(());
                }
                _ => {}
            }
            Ok(cursor.value(3)?)
        },
        || if has_type_or_role.replace(false) { Ok(()) } else { Err(ScanError::ProviderState("input[].id")) },
    )
}
