drop schema if exists :schema cascade;
drop schema if exists :queue cascade;
