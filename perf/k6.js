// A load with many users and checks on every answer: perf/k6 run -e TARGET=http://127.0.0.1:8080/
import http from "k6/http";
import { check } from "k6";

const target = __ENV.TARGET || "http://127.0.0.1:8080/";

export const options = {
  scenarios: {
    steady: {
      executor: "constant-vus",
      vus: Number(__ENV.USERS || 50),
      duration: __ENV.DURATION || "10s",
    },
  },
  thresholds: {
    http_req_failed: ["rate==0"],
    checks: ["rate==1"],
  },
  summaryTrendStats: ["med", "p(99)", "p(99.9)", "max"],
};

export default function () {
  const get = http.get(target);
  check(get, { "GET is answered 200": (reply) => reply.status === 200 });
  const body = "x".repeat(1024);
  if (__ENV.UPLOAD) {
    const post = http.post(target, body, { headers: { "Content-Type": "text/plain" } });
    check(post, { "POST is answered 200": (reply) => reply.status === 200 });
  }
}
