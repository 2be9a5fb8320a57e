-- Prints the result as one line of JSON, for programs. Times are in microseconds.
--   wrk -t1 -c64 -d5s -s perf/wrk.lua http://127.0.0.1:8080/
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,' ..
      '"failed":%d,"bad_status":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
