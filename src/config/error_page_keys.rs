//! The keys of `[[error_pages]]`, of the process and of a route.

use super::keys::Fallback::{Absent, Is, Required};
use super::keys::{Key, key};

pub(super) const ERROR_PAGES: &[Key] = &[
    key(
        "error_pages[].statuses",
        "status, class or list",
        Required,
        "error_pages = [{ statuses = [404, \"5xx\"], file = \"/dev/null\" }]",
        "statuses with this page where the proxy itself answers, by `respond` without a body too",
    ),
    key(
        "error_pages[].file",
        "path",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = 404, file = \"/etc/corelane/404.html\" }]",
        "file that holds the page; read at start and at every reload, not when it changes",
    ),
    key(
        "error_pages[].body",
        "string",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = \"5xx\", body = \"<h1>{{reason}}</h1> {{request_id}}\" }]",
        "the page itself; {{request_id}} {{status}} {{reason}} {{code}} {{message}} {{timestamp}} \
         {{method}} {{host}} {{path}} {{client_ip}} {{proxy_id}} {{trace_id}} are the request's, \
         escaped for text and quoted attributes",
    ),
    key(
        "error_pages[].builtin",
        "boolean",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = \"4xx\", builtin = true }]",
        "answer with the JSON form that errors have without a page",
    ),
    key(
        "error_pages[].content_type",
        "content type",
        Is("\"text/html; charset=utf-8\""),
        "error_pages = [{ statuses = 404, body = '{\"id\":\"{{request_id}}\"}', \
         content_type = \"application/json\" }]",
        "its Content-Type; who accepts JSON and not HTML gets the JSON form instead of other types",
    ),
    key(
        "error_pages[].intercept_upstream",
        "boolean",
        Is("false"),
        "error_pages = [{ statuses = 502, body = \"sorry\", intercept_upstream = true }]",
        "show the page also instead of what a backend answers with these statuses",
    ),
    key(
        "routes[].error_pages[].statuses",
        "status, class or list",
        Required,
        "error_pages = [{ statuses = [404, \"5xx\"], file = \"/dev/null\" }]",
        "statuses that have this page on this route; others have those above all routes",
    ),
    key(
        "routes[].error_pages[].file",
        "path",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = 404, file = \"/etc/corelane/orders-404.html\" }]",
        "file that holds the page of this route",
    ),
    key(
        "routes[].error_pages[].body",
        "string",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = \"5xx\", body = \"<h1>{{reason}}</h1> {{request_id}}\" }]",
        "the page of this route itself, with the same variables",
    ),
    key(
        "routes[].error_pages[].builtin",
        "boolean",
        Absent("one of file, body, builtin is needed"),
        "error_pages = [{ statuses = [\"4xx\", \"5xx\"], builtin = true }]",
        "answer with the JSON form on this route, whatever pages stand above all routes",
    ),
    key(
        "routes[].error_pages[].content_type",
        "content type",
        Is("\"text/html; charset=utf-8\""),
        "error_pages = [{ statuses = 404, body = \"none\", content_type = \"text/plain\" }]",
        "Content-Type of the page of this route",
    ),
    key(
        "routes[].error_pages[].intercept_upstream",
        "boolean",
        Is("false"),
        "error_pages = [{ statuses = \"5xx\", body = \"sorry\", intercept_upstream = true }]",
        "show the page of this route also instead of what a backend answers",
    ),
];
