"""librdkafka's mock cluster as a process: one broker that speaks Kafka, and fails as it is told.

Prints its address, then obeys one command a line, and answers each with `ok`:
    topic NAME PARTITIONS · errors API CODE… (the next answers of that API) · down · up
"""

import ctypes as c
import glob
import os
import sys

import confluent_kafka

_HERE = os.path.dirname(confluent_kafka.__file__)
_PLACES = (
    os.path.join(os.path.dirname(_HERE), "confluent_kafka.libs", "librdkafka*.so*"),
    os.path.join(_HERE, ".dylibs", "librdkafka*.dylib"),
)


def library() -> c.CDLL:
    (path,) = (found for place in _PLACES for found in glob.glob(place))
    lib = c.CDLL(path)
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(lib, name).restype = c.c_void_p
    lib.rd_kafka_new.argtypes = [c.c_int, c.c_void_p, c.c_char_p, c.c_size_t]
    lib.rd_kafka_mock_cluster_new.argtypes = [c.c_void_p, c.c_int]
    lib.rd_kafka_mock_cluster_bootstraps.restype = c.c_char_p
    lib.rd_kafka_mock_cluster_bootstraps.argtypes = [c.c_void_p]
    lib.rd_kafka_mock_topic_create.argtypes = [c.c_void_p, c.c_char_p, c.c_int, c.c_int]
    for name in ("down", "up"):
        getattr(lib, f"rd_kafka_mock_broker_set_{name}").argtypes = [c.c_void_p, c.c_int32]
    lib.rd_kafka_mock_push_request_errors_array.argtypes = [
        *(c.c_void_p, c.c_int16, c.c_size_t),
        c.POINTER(c.c_int),
    ]
    return lib


def main() -> None:
    lib = library()
    client = lib.rd_kafka_new(0, lib.rd_kafka_conf_new(), c.create_string_buffer(512), 512)
    cluster = lib.rd_kafka_mock_cluster_new(client, 1)
    say(lib.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    for line in sys.stdin:
        match line.split():
            case ["topic", name, partitions]:
                lib.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), 1)
            case ["errors", api, *codes]:
                array = (c.c_int * len(codes))(*map(int, codes))
                lib.rd_kafka_mock_push_request_errors_array(cluster, int(api), len(codes), array)
            case ["down"]:
                lib.rd_kafka_mock_broker_set_down(cluster, 1)
            case ["up"]:
                lib.rd_kafka_mock_broker_set_up(cluster, 1)
            case _:
                raise SystemExit(f"unknown command: {line}")
        say("ok")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
