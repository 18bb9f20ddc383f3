"""One unary call of grpc_server.py: grpc_call.py ADDRESS:PORT AUTHORITY METHOD TEXT.

Says `OK` and what came back, or the status and why the mesh answered itself.
"""

import sys

import grpc

PATIENCE_S = 20

address, authority, method, text = sys.argv[1:]
options = [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
with grpc.insecure_channel(address, options=options) as channel:
    call = channel.unary_unary(f"/ringmesh.Interop/{method}")
    try:
        print("OK", call(text.encode(), timeout=PATIENCE_S).decode())
    except grpc.RpcError as error:
        told = dict((*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())))
        print(error.code().name, told.get("x-ringmesh-reason", error.details()))
