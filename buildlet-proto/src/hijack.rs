//! HTTP/1.1 connections that a handler can take over.
