// SPDX-License-Identifier: Apache-2.0
//
// node server.js DIRECTORY: an S3 server on 127.0.0.1 with the bucket "herd";
// prints its port. NODE_PATH says where the package is. It checks signatures
// (version 4) of the key S3RVER, whose secret is S3RVER.
//
// The package cannot list the parts of an upload, which going on with one
// needs: that is added here, from the files in which it keeps parts. Without a
// signature check, since the package's own comes later.
'use strict';

const fs = require('fs');
const path = require('path');
const S3rver = require('@20minutes/s3rver');

const server = new S3rver({
	directory: process.argv[2],
	address: '127.0.0.1',
	port: 0,
	silent: true,
	configureBuckets: [{ name: 'herd' }],
});

// A page is small, so that there is more than one.
const PAGE = 2;

function list(dir, marker)
{
	const have = fs.readdirSync(dir).filter((f) => /^[0-9]+$/.test(f))
		.map(Number).filter((n) => n > marker).sort((a, b) => a - b);
	const page = have.slice(0, PAGE);
	const parts = page.map((n) => {
		const file = path.join(dir, String(n));
		const md5 = fs.readFileSync(`${file}.md5`, 'utf8');

		return `<Part><PartNumber>${n}</PartNumber><ETag>&quot;${md5}` +
			`&quot;</ETag><Size>${fs.statSync(file).size}</Size></Part>`;
	});
	const more = have.length > page.length;

	return '<?xml version="1.0"?>\n<ListPartsResult>' +
		`<IsTruncated>${more}</IsTruncated><NextPartNumberMarker>` +
		`${page.at(-1) ?? 0}</NextPartNumberMarker>${parts.join('')}` +
		'</ListPartsResult>';
}

server.middleware.unshift(async (ctx, next) => {
	if (ctx.method !== 'GET' || !/^[0-9a-f]+$/.test(ctx.query.uploadId ?? ''))
		return next();
	const dir = path.join(server.store.getResourcePath('herd', undefined,
		'uploads'), ctx.query.uploadId);
	const marker = Number(ctx.query['part-number-marker'] ?? 0);

	ctx.status = fs.existsSync(dir) ? 200 : 404;
	ctx.body = ctx.status === 200 ? list(dir, marker) : '';
});

server.run().then((address) => console.log(address.port));
