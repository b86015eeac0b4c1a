//! What can be wrong with a session and with nothing else.

use crate::problem::Problem;

impl Problem {
    pub const UPGRADE_REQUIRED: Self = Self::new(426, "upgrade_required", "This route speaks WebSocket: open it with a handshake of version 13.");
    pub const TWO_KEYS: Self = Self::new(400, "duplicate_key", "Two API keys were sent. Send one.");
    pub const MODEL_TWICE: Self = Self::new(400, "duplicate_key", "The parameter `model` appears twice. Send it once.").about("model");
    pub const MODEL_MISSING: Self = Self::new(400, "missing_parameter", "The parameter `model` is missing.").about("model");
    pub const BAD_MODEL: Self = Self::new(400, "invalid_type", "The parameter `model` must be a model's name.").about("model");
    pub const UNKNOWN_PARAMETER: Self = Self::new(400, "unknown_parameter", "Only the parameter `model` is understood here.");
    pub const MODEL_FIXED: Self =
        Self::new(403, "model_fixed", "The session's model was chosen when it was opened. Open another session for another model.").about("model");
    pub const NOT_TEXT: Self = Self::new(400, "invalid_json", "Events are text. Binary messages are not passed on.");
    pub const GOING_AWAY: Self = Self::new(503, "gateway_stopping", "This gateway is stopping. Open the session again.");
    pub const CALLER_SILENT: Self = Self::new(408, "caller_silent", "Nothing was heard from the caller for too long.");
}
