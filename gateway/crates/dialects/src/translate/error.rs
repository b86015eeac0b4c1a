//! Why a translation is refused, and where.

use std::fmt::Write;
use tenon_problem::ProblemCode;

/// The caller's request cannot be translated into the endpoint's dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {reason}")]
pub struct TranslationError {
    pub code: ProblemCode,
    /// As in `messages[2].content[0].image_url`.
    pub path: String,
    pub reason: &'static str,
}

/// The endpoint's answer does not follow its dialect, or cannot be translated into the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedAnswer(pub &'static str);

impl From<crate::frames::Overlong> for MalformedAnswer {
    fn from(_: crate::frames::Overlong) -> Self {
        Self("a frame of the stream is too long to be translated")
    }
}

impl TranslationError {
    pub(super) fn syntax() -> Self {
        Self { code: ProblemCode::InvalidJson, path: String::new(), reason: "is not valid JSON." }
    }
}

/// The position in the request: a linked list on the stack, written out only when something is refused.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub fn root(key: &'p str) -> Self {
        Self { parent: None, step: Step::Key(key) }
    }

    pub fn key(&'p self, key: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    pub fn index(&'p self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    fn write(&self, to: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(to);
        }
        let written = match self.step {
            Step::Key(key) if self.parent.is_none() => write!(to, "{key}"),
            Step::Key(key) => write!(to, ".{key}"),
            Step::Index(index) => write!(to, "[{index}]"),
        };
        written.unwrap_or_default();
    }

    fn refuse(&self, code: ProblemCode, reason: &'static str) -> TranslationError {
        let mut path = String::new();
        self.write(&mut path);
        path.truncate(path.floor_char_boundary(200));
        TranslationError { code, path, reason }
    }

    /// There is no counterpart.
    pub fn no_counterpart(&self) -> TranslationError {
        self.refuse(ProblemCode::UntranslatableParameter, "has no counterpart in the protocol of this model's endpoint.")
    }

    pub fn untranslatable(&self, reason: &'static str) -> TranslationError {
        self.refuse(ProblemCode::UntranslatableParameter, reason)
    }

    pub fn wrong_type(&self, reason: &'static str) -> TranslationError {
        self.refuse(ProblemCode::InvalidType, reason)
    }

    pub fn missing(&self) -> TranslationError {
        self.refuse(ProblemCode::MissingParameter, "is missing.")
    }
}
