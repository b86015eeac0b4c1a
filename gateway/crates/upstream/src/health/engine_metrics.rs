//! Reads from an engine's metrics page (Prometheus text) the figures that routing uses.

use tenon_balance::EngineLoad;
use tenon_contract::Engine;

/// A metric's name, and what its labels must contain.
type Name = (&'static str, &'static str);

struct MetricNames {
    running: &'static [Name],
    waiting: &'static [Name],
    /// From 0 to 1, whatever some of the names say.
    usage: &'static [Name],
    /// Its number of running requests includes those that wait.
    running_is_all: bool,
}

const VLLM: MetricNames = MetricNames {
    running: &[("vllm:num_requests_running", "")],
    waiting: &[("vllm:num_requests_waiting", "")],
    usage: &[("vllm:kv_cache_usage_perc", ""), ("vllm:gpu_cache_usage_perc", "")],
    running_is_all: false,
};
const SGLANG: MetricNames = MetricNames {
    running: &[("sglang:num_running_reqs", "")],
    waiting: &[("sglang:num_queue_reqs", "")],
    usage: &[("sglang:token_usage", "")],
    running_is_all: false,
};
/// Of its frontend. Its workers use the names of the engine they run.
const DYNAMO: MetricNames = MetricNames {
    running: &[("dynamo_frontend_inflight_requests", ""), ("dynamo_frontend_active_requests", "")],
    waiting: &[("dynamo_frontend_queued_requests", "")],
    usage: &[],
    running_is_all: true,
};
/// Its own server, the same behind Dynamo, and Triton's backend.
const TENSORRT_LLM: MetricNames = MetricNames {
    running: &[
        ("trtllm_num_requests_running", ""),
        ("trtllm:num_requests_running", ""),
        ("nv_trt_llm_request_metrics", "request_type=\"scheduled\""),
    ],
    waiting: &[("trtllm_num_requests_waiting", ""), ("trtllm:num_requests_waiting", ""), ("nv_trt_llm_request_metrics", "request_type=\"waiting\"")],
    usage: &[
        ("trtllm_kv_cache_utilization", ""),
        ("trtllm:kv_cache_utilization", ""),
        ("trtllm:kv_cache_usage_perc", ""),
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type=\"fraction\""),
    ],
    running_is_all: false,
};
const LLAMA_CPP: MetricNames = MetricNames {
    running: &[("llamacpp:requests_processing", "")],
    waiting: &[("llamacpp:requests_deferred", "")],
    usage: &[("llamacpp:kv_cache_usage_ratio", "")],
    running_is_all: false,
};

/// The figures of a page; `None` = it has none that this engine is known to report.
pub fn figures(engine: Engine, page: &str) -> Option<EngineLoad> {
    match engine {
        Engine::Vllm => VLLM.read(page),
        Engine::Sglang => SGLANG.read(page),
        // Its workers and its mocker use the names of the engine they run; the frontend's page has none of these.
        Engine::Dynamo => [DYNAMO, VLLM, SGLANG, TENSORRT_LLM].iter().find_map(|names| names.read(page)),
        Engine::TensorrtLlm => TENSORRT_LLM.read(page),
        Engine::LlamaCpp => LLAMA_CPP.read(page),
        Engine::Unspecified => [VLLM, SGLANG, DYNAMO, TENSORRT_LLM, LLAMA_CPP].iter().find_map(|names| names.read(page)),
    }
}

impl MetricNames {
    fn read(&self, page: &str) -> Option<EngineLoad> {
        let (mut running, mut waiting) = (Sums::of(self.running), Sums::of(self.waiting));
        let mut usage: Option<f64> = None;
        for sample in page.lines().filter_map(sample) {
            running.add(&sample);
            waiting.add(&sample);
            if self.usage.iter().any(|name| sample.is(*name)) {
                usage = Some(usage.unwrap_or(0.0).max(sample.value));
            }
        }
        let (running, waiting) = (running.max(), waiting.max());
        if running.is_none() && waiting.is_none() {
            return None;
        }
        let (running, waiting) = (running.unwrap_or(0.0), waiting.unwrap_or(0.0));
        let running = if self.running_is_all { (running - waiting).max(0.0) } else { running };
        Some(EngineLoad { running: whole(running), waiting: whole(waiting), kv_permille: usage.map(permille) })
    }
}

/// One sum for each name: several series of a name are parts (models, ranks), several names stand for the same figure.
struct Sums {
    names: &'static [Name],
    sums: [Option<f64>; 4],
}

impl Sums {
    fn of(names: &'static [Name]) -> Self {
        Self { names, sums: [None; 4] }
    }

    fn add(&mut self, sample: &Sample<'_>) {
        for (name, sum) in self.names.iter().zip(&mut self.sums) {
            if sample.is(*name) {
                *sum = Some(sum.unwrap_or(0.0) + sample.value);
            }
        }
    }

    fn max(&self) -> Option<f64> {
        self.sums.iter().flatten().copied().reduce(f64::max)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // casts saturate, and samples are neither negative nor NaN
fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most a thousand
fn permille(usage: f64) -> u16 {
    (usage.min(1.0) * 1_000.0).round() as u16
}

#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl Sample<'_> {
    fn is(&self, (name, labels): Name) -> bool {
        self.name == name && self.labels.contains(labels)
    }
}

/// `name{labels} value [timestamp]`; a line that is anything else, or whose value is no count, is skipped.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let name_ends = line.find(['{', ' ', '\t']).filter(|_| !line.starts_with('#'))?;
    let (name, rest) = line.split_at(name_ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_at(closing(rest)?),
        None => ("", rest),
    };
    let value: f64 = rest.trim_start_matches('}').split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(Sample { name, labels, value })
}

/// The brace that ends the labels: not one in a value.
fn closing(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    labels.bytes().position(|byte| {
        let ends = byte == b'}' && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(running: u32, waiting: u32, kv_permille: impl Into<Option<u16>>) -> Option<EngineLoad> {
        Some(EngineLoad { running, waiting, kv_permille: kv_permille.into() })
    }

    #[test]
    fn vllm() {
        let page = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-0.6B"} 7.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-0.6B"} 5.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-0.6B"} 3.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-0.6B"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-0.6B"} 0.4213
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-0.6B"} 0.918
vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3-0.6B"} 1.0482e+06
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="Qwen/Qwen3-0.6B"} 412.0
"#;
        assert_eq!(figures(Engine::Vllm, page), expected(12, 3, 918));
        assert_eq!(figures(Engine::Unspecified, page), expected(12, 3, 918), "an engine that is not named is recognised by its metric names");
        assert_eq!(figures(Engine::Dynamo, page), expected(12, 3, 918), "a worker of Dynamo's");
        assert_eq!(figures(Engine::Sglang, page), None);
        let old = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0.25\n";
        assert_eq!(figures(Engine::Vllm, old), expected(1, 0, 250));
    }

    #[test]
    fn sglang() {
        let page = r#"# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="meta-llama/Llama-3.1-8B-Instruct",pp_rank="0",tp_rank="0"} 162.0
# HELP sglang:token_usage The token usage.
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.28
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 2826.0
sglang:gen_throughput{model_name="meta-llama/Llama-3.1-8B-Instruct"} 86.50814177726902
"#;
        assert_eq!(figures(Engine::Sglang, page), expected(162, 2826, 280));
    }

    #[test]
    fn dynamos_frontend_counts_what_waits_as_in_flight() {
        let page = r#"# HELP dynamo_frontend_inflight_requests Number of inflight requests
# TYPE dynamo_frontend_inflight_requests gauge
dynamo_frontend_inflight_requests{model="qwen/qwen3-0.6b"} 10
dynamo_frontend_active_requests{model="qwen/qwen3-0.6b"} 10
# TYPE dynamo_frontend_queued_requests gauge
dynamo_frontend_queued_requests{model="qwen/qwen3-0.6b"} 7
dynamo_frontend_disconnected_clients 0
"#;
        assert_eq!(figures(Engine::Dynamo, page), expected(3, 7, None), "two names of one thing are not added up");
        assert_eq!(figures(Engine::Dynamo, "# TYPE dynamo_frontend_inflight_requests gauge\n"), None, "nothing before its first request");
    }

    #[test]
    fn tensorrt_llm_by_itself_and_in_triton() {
        let own = r#"trtllm_num_requests_running{engine_type="trtllm",model_name="llama-8b"} 4.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="llama-8b"} 1.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="llama-8b"} 0.62
"#;
        assert_eq!(figures(Engine::TensorrtLlm, own), expected(4, 1, 620));
        let mocked = r#"trtllm:gpu_cache_usage_perc{engine="0",model_name="mock"} 0.000732421875
trtllm:kv_cache_usage_perc{engine="0",model_name="mock"} 0.000732421875
trtllm:num_requests_running{engine="0",model_name="mock"} 3
trtllm:num_requests_waiting{engine="0",model_name="mock"} 0
"#;
        assert_eq!(figures(Engine::TensorrtLlm, mocked), expected(3, 0, 1), "as Dynamo's mocker writes it");
        let triton = r#"nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 9
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;
        assert_eq!(figures(Engine::TensorrtLlm, triton), expected(9, 2, 488));
    }

    #[test]
    fn llama_cpp() {
        let page = "# HELP llamacpp:requests_processing Number of requests processing.\n# TYPE llamacpp:requests_processing gauge\n\
                    llamacpp:requests_processing 2\nllamacpp:requests_deferred 0\nllamacpp:n_busy_slots_per_decode nan\n";
        assert_eq!(figures(Engine::LlamaCpp, page), expected(2, 0, None));
        let older = "llamacpp:kv_cache_usage_ratio 1.01\nllamacpp:requests_processing 20\r\nllamacpp:requests_deferred 3 1760000000000\n";
        assert_eq!(figures(Engine::LlamaCpp, older), expected(20, 3, 1_000));
    }

    #[test]
    fn odd_lines_are_skipped() {
        let parsed = |line| sample(line).map(|sample| (sample.name, sample.labels, sample.value));
        assert_eq!(parsed(r#"a{model="x} \" y{",n="1"} 3 17"#), Some(("a", r#"model="x} \" y{",n="1""#, 3.0)));
        assert_eq!(parsed("a{}4"), Some(("a", "", 4.0)));
        for odd in ["", "a", "a ", "# a 1", "a{b=\"c\" 1", "a{b=\"\\", "a NaN", "a +Inf", "a -1", "a b", "{a} ", "<html> a", "a{} }"] {
            assert_eq!(parsed(odd), None, "{odd}");
        }
    }
}
