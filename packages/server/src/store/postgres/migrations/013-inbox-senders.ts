/**
 * The sender of each waiting message, and its index: a full inbox evicts the messages of the sender that has the most
 * there (messages/eviction.ts). A process of the previous version stores 0, which counts as one more sender.
 */
export const inboxSenders = `
alter table inbox add column sender_num bigint not null default 0;
update inbox set sender_num = coalesce((select user_num from users where user_id = event::json ->> 'sender'), 0);
create index inbox_by_sender on inbox (device_num, sender_num, pos) include (length);
`
