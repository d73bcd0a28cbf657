/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The version of these programs
 */
#ifndef BYRE_VERSION
#define BYRE_VERSION "0.1.0"
#endif
