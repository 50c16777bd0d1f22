// Serves HTTP with the C library and the bindings of `wit-bindgen c`.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

// What a stream is asked for and given at a time, in bytes; `blocking_write_and_flush` takes no more.
enum { CHUNK = 4096 };

static int served = 0;

typedef wasi_http_types_borrow_incoming_request_t Request;
typedef wasi_http_types_own_response_outparam_t Out;

// A response whose head is sent; its body is written to the stream.
typedef struct {
    wasi_http_types_own_outgoing_body_t body;
    wasi_http_types_own_output_stream_t stream;
} Response;

static Response begin(Out out, uint16_t status) {
    wasi_http_types_own_outgoing_response_t response =
        wasi_http_types_constructor_outgoing_response(wasi_http_types_constructor_fields());
    wasi_http_types_borrow_outgoing_response_t borrowed = wasi_http_types_borrow_outgoing_response(response);
    Response begun;
    if (!wasi_http_types_method_outgoing_response_set_status_code(borrowed, status) ||
        !wasi_http_types_method_outgoing_response_body(borrowed, &begun.body) ||
        !wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(begun.body), &begun.stream))
        abort();
    wasi_http_types_result_own_outgoing_response_error_code_t result = {.is_err = false, .val.ok = response};
    wasi_http_types_static_response_outparam_set(out, &result);
    return begun;
}

static bool write_all(Response response, uint8_t *bytes, size_t length) {
    wasi_io_streams_stream_error_t error;
    while (length > 0) {
        guest_list_u8_t chunk = {bytes, length < CHUNK ? length : CHUNK};
        if (!wasi_io_streams_method_output_stream_blocking_write_and_flush(
                wasi_io_streams_borrow_output_stream(response.stream), &chunk, &error)) {
            wasi_io_streams_stream_error_free(&error);
            return false;
        }
        bytes += chunk.len;
        length -= chunk.len;
    }
    return true;
}

static void end(Response response) {
    wasi_http_types_error_code_t error;
    wasi_io_streams_output_stream_drop_own(response.stream);
    if (!wasi_http_types_static_outgoing_body_finish(response.body, NULL, &error))
        wasi_http_types_error_code_free(&error);
}

static void answer(Out out, uint16_t status, const char *format, const char *argument) {
    char text[512];
    int length = snprintf(text, sizeof text, format, argument);
    if (length >= (int)sizeof text) length = sizeof text - 1;
    Response response = begin(out, status);
    write_all(response, (uint8_t *)text, (size_t)length);
    end(response);
}

static void echo(Request request, Out out) {
    wasi_http_types_own_incoming_body_t body;
    wasi_http_types_own_input_stream_t stream;
    if (!wasi_http_types_method_incoming_request_consume(request, &body) ||
        !wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream))
        abort();
    Response response = begin(out, 200);
    wasi_io_streams_stream_error_t error;
    guest_list_u8_t chunk;
    bool written = true;
    while (written && wasi_io_streams_method_input_stream_blocking_read(
                          wasi_io_streams_borrow_input_stream(stream), CHUNK, &chunk, &error)) {
        written = write_all(response, chunk.ptr, chunk.len);
        guest_list_u8_free(&chunk);
    }
    if (written) wasi_io_streams_stream_error_free(&error);
    wasi_io_streams_input_stream_drop_own(stream);
    wasi_http_types_incoming_body_drop_own(body);
    end(response);
}

static void environment(Out out, const char *query) {
    const char *name = query && strncmp(query, "name=", 5) == 0 ? query + 5 : "";
    const char *value = getenv(name);
    if (value)
        answer(out, 200, "%s\n", value);
    else
        answer(out, 404, "no variable %s\n", name);
}

// The path and query as a string of C's, to be freed.
static char *target(Request request) {
    guest_string_t found;
    char *copy = NULL;
    if (wasi_http_types_method_incoming_request_path_with_query(request, &found)) {
        copy = strndup((char *)found.ptr, found.len);
        guest_string_free(&found);
    }
    return copy ? copy : strdup("/");
}

void exports_wasi_http_incoming_handler_handle(wasi_http_types_own_incoming_request_t request, Out out) {
    served += 1;
    Request borrowed = wasi_http_types_borrow_incoming_request(request);
    char *path = target(borrowed);
    if (!path) abort();
    char *query = strchr(path, '?');
    if (query) *query++ = '\0';

    if (strcmp(path, "/") == 0) {
        answer(out, 200, "Hello from %s!\n", "C");
    } else if (strcmp(path, "/echo") == 0) {
        echo(borrowed, out);
    } else if (strcmp(path, "/env") == 0) {
        environment(out, query);
    } else if (strcmp(path, "/count") == 0) {
        char count[16];
        snprintf(count, sizeof count, "%d", served);
        answer(out, 200, "%s\n", count);
    } else {
        fprintf(stderr, "no %s\n", path);
        answer(out, 404, "no %s\n", path);
    }
    free(path);
    wasi_http_types_incoming_request_drop_own(request);
}
